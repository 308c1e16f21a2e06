package conntrack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ebb-lb/ebb/agent/noted"
)

// Kept is the note of what an agent has raised in its network namespace. It is
// written before the setting is, so whatever ends the agent, the next one and
// "ebb cleanup" know what is theirs. One process at a time may change it.
type Kept string

// KeptIn returns the one of a state directory.
func KeptIn(dir string) Kept { return Kept(filepath.Join(dir, "conntrack-settings.json")) }

// note is the content of the file.
type note struct {
	noted.Origin
	Settings map[string]raised `json:"settings"`
}

// raised is a setting that is the agent's as long as nobody gives it another value.
type raised struct {
	Before int `json:"before"`
	After  int `json:"after"`
}

// Change is a setting that has been given another value.
type Change struct {
	Name          string
	Before, After int
}

// Raise brings the kernel's settings to what l wants, never below what they were
// before the agent changed them: a lower one is raised, and what an earlier agent has raised
// higher is taken back. Without netfilter's connection tracking there is nothing
// to do. It returns what it changed; an error names all that could not be.
func (k Kept) Raise(l Limits) ([]Change, error) { return k.bring(l.settings(cores())) }

// Release gives back what is still as the agent has left it, and forgets all.
func (k Kept) Release() error {
	_, err := k.bring(nil)
	if err = errors.Join(err, noted.File(k).Remove()); err != nil {
		return fmt.Errorf("give conntrack settings back: %w", err)
	}
	return nil
}

func (k Kept) bring(want []setting) (changes []Change, err error) {
	n, err := k.read()
	if err != nil {
		return nil, err
	}
	for name := range n.Settings {
		if !slices.ContainsFunc(want, func(s setting) bool { return s.name == name }) {
			want = append(want, setting{name: name})
		}
	}
	var errs []error
	refused := make(map[string]bool)
	for _, s := range want {
		if s.name == bucketsName && refused[maxName] {
			continue // it would be for a limit that is not there
		}
		c, err := k.bringOne(s, &n)
		if err != nil {
			refused[s.name] = true
			errs = append(errs, err)
		} else if c.Before != c.After {
			changes = append(changes, c)
		}
	}
	return changes, errors.Join(errs...)
}

// bringOne gives one setting the value it is to have, and keeps the note in step.
func (k Kept) bringOne(s setting, n *note) (Change, error) {
	now, err := readValue(s.file())
	if errors.Is(err, fs.ErrNotExist) {
		return Change{}, nil
	}
	if err != nil {
		return Change{}, err
	}
	was, known := n.Settings[s.name]
	before := now
	if known && now == was.After {
		before = was.Before
	}
	to := max(before, s.least)
	if to == now {
		return Change{}, k.write(n, s.name, before, to)
	}
	if err := k.write(n, s.name, before, to); err != nil {
		return Change{}, err
	}
	if err := os.WriteFile(noted.Writable(s.file()), []byte(strconv.Itoa(to)), 0o644); err != nil {
		return Change{}, errors.Join(fmt.Errorf("set %s to %d (it is %d): %w", s.name, to, now, err), k.write(n, s.name, before, now))
	}
	return Change{s.name, now, to}, nil
}

// write notes what a setting was and is, if that is the agent's doing.
func (k Kept) write(n *note, name string, before, after int) error {
	was, noticed := n.Settings[name]
	is := raised{before, after}
	switch {
	case before != after && was != is:
		n.Settings[name] = is
	case before == after && noticed:
		delete(n.Settings, name)
	default:
		return nil
	}
	if len(n.Settings) == 0 {
		return noted.File(k).Remove()
	}
	return noted.File(k).Write(n)
}

// read returns the note of this namespace.
func (k Kept) read() (note, error) {
	var n note
	if err := noted.File(k).Read(&n); err != nil {
		return note{}, err
	}
	here, err := noted.Here()
	if err != nil {
		return note{}, err
	}
	if n.Origin != here || n.Settings == nil {
		n = note{Origin: here, Settings: make(map[string]raised)}
	}
	return n, nil
}

func readValue(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("%s holds %q", file, text)
	}
	return v, nil
}
