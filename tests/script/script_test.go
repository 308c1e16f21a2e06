// Package script tests the control plane as a whole: manifests go in, by a
// directory or by the Kubernetes API, and what "ebb dump" would print comes out.
// Store, sources, planner and loop are the real ones; the maps are in memory,
// watch over the invariant of package plan at every write, and refuse writes
// when told to. Time is that of a synctest bubble: nothing waits.
//
// A script is a file in testdata. Its files are manifests and expected dumps;
// what stands before them are commands, one a line. "#" begins a comment, and a
// line that begins with [dir] or [kubernetes] is for that source only.
//
//	only SOURCE          the script makes no sense for the other source
//	capacity BACKENDS [FRONTENDS [SLOTS [RANGES]]]: room for so many
//	nodeports all        node ports are on all addresses of the node
//	put FILE...          manifests appear or are replaced; FILE is NAME or NAME@VERSION
//	remove NAME...       manifests go away
//	swap FILE...         a mounted ConfigMap changes: these are its files now
//	stop, start, restart the agent, which is started before the first put
//	flows INDEX N        backend INDEX has N live flows
//	refuse N             the next N writes fail
//	sync                 until everything has settled
//	dump NAME            the maps are as in the file NAME
//	writes N             so many writes were done until the last sync, since the one before
//	log TEXT...          a line logged since the last sync but one contains all TEXT
//	healthz CODE         what an external balancer is told
//
// With -update the expected dumps are written instead of compared.
package script

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"unicode"

	"golang.org/x/tools/txtar"

	"github.com/ebb-lb/ebb/agent/plan"
)

var update = flag.Bool("update", false, "write the expected dumps")

// seeds is how often a script is played with writes refused at random.
const seeds = 4

// sources are the ways manifests reach the agent.
func sources() []string { return []string{"dir", "kubernetes"} }

func TestScripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("scripts %v, error %v", paths, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			s, err := load(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range s.sources {
				t.Run(name, func(t *testing.T) { playAll(t, s, name) })
			}
		})
	}
}

// playAll plays s once as it is, and then with writes refused at random, which
// must come to the same in the end.
func playAll(t *testing.T, s *script, source string) {
	want := play(t, s, source, nil)
	if *update {
		if err := s.save(); err != nil {
			t.Fatal(err)
		}
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("writes refused at random, seed ", seed), func(t *testing.T) {
			got := play(t, s, source, rand.New(rand.NewPCG(seed, 0)))
			if !slices.Equal(want, got) {
				t.Errorf("meaning of the dumps without refusals:\n%s\nwith:\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
			}
		})
	}
}

// play returns what each dump of s means. Without rng no write is refused but
// those the script wants refused.
func play(t *testing.T, s *script, source string, rng *rand.Rand) (meanings []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, s, source, rng)
		defer w.stop()
		for _, c := range s.commands {
			if c.source == "" || c.source == source {
				w.do(c)
			}
		}
		meanings = w.meanings
	})
	return meanings
}

// script is a file in testdata.
type script struct {
	path     string
	archive  *txtar.Archive
	sources  []string
	capacity plan.Capacities
	allAddrs bool // node ports are on all addresses of the node
	commands []command
}

// command is one line of a script.
type command struct {
	at     string // file:line
	source string // empty: any
	name   string
	args   []string
}

func load(path string) (*script, error) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		return nil, err
	}
	s := &script{path: path, archive: archive, sources: sources(), capacity: plan.Capacities{Frontends: 64, ServicePorts: 64, Backends: 64, Slots: 1 << 14, SourceRanges: 64}}
	for i, line := range strings.Split(string(archive.Comment), "\n") {
		c, err := parse(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
		c.at = fmt.Sprintf("%s:%d", path, i+1)
		if err := s.add(c); err != nil {
			return nil, fmt.Errorf("%s: %w", c.at, err)
		}
	}
	return s, nil
}

// add carries out what is about the script as a whole, and keeps the rest.
func (s *script) add(c command) error {
	switch c.name {
	case "":
	case "only":
		s.sources = c.args
	case "capacity":
		return s.limit(c.args)
	case "nodeports":
		s.allAddrs = strings.Join(c.args, " ") == "all"
	default:
		s.commands = append(s.commands, c)
	}
	return nil
}

// limit is the command capacity.
func (s *script) limit(args []string) error {
	sizes := []*uint32{&s.capacity.Backends, &s.capacity.Frontends, &s.capacity.Slots, &s.capacity.SourceRanges}
	if len(args) > len(sizes) {
		return fmt.Errorf("capacity of %d maps, there are %d", len(args), len(sizes))
	}
	for i, arg := range args {
		n, err := strconv.ParseUint(arg, 10, 32)
		if err != nil {
			return err
		}
		*sizes[i] = uint32(n)
	}
	return nil
}

// parse splits a line into words; one in double quotes may have spaces.
func parse(line string) (command, error) {
	line, _, _ = strings.Cut(line, "#")
	var words []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		word, rest, err := firstWord(line)
		if err != nil {
			return command{}, err
		}
		words, line = append(words, word), rest
	}
	var c command
	if len(words) > 1 && strings.HasPrefix(words[0], "[") {
		c.source, words = strings.Trim(words[0], "[]"), words[1:]
	}
	if len(words) > 0 {
		c.name, c.args = words[0], words[1:]
	}
	return c, nil
}

func firstWord(line string) (word, rest string, err error) {
	if line[0] != '"' {
		end := strings.IndexFunc(line+" ", unicode.IsSpace)
		return line[:end], line[end:], nil
	}
	quoted, err := strconv.QuotedPrefix(line)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", line, err)
	}
	word, err = strconv.Unquote(quoted)
	return word, line[len(quoted):], err
}

// file returns the content of a file of the script.
func (s *script) file(name string) ([]byte, error) {
	for _, f := range s.archive.Files {
		if f.Name == name {
			return f.Data, nil
		}
	}
	return nil, fmt.Errorf("the script has no file %s", name)
}

// setFile replaces or adds a file.
func (s *script) setFile(name, text string) {
	for i := range s.archive.Files {
		if s.archive.Files[i].Name == name {
			s.archive.Files[i].Data = []byte(text)
			return
		}
	}
	s.archive.Files = append(s.archive.Files, txtar.File{Name: name, Data: []byte(text)})
}

func (s *script) save() error {
	return os.WriteFile(s.path, txtar.Format(s.archive), 0o644)
}
