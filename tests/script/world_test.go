package script

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/apply"
	"github.com/ebb-lb/ebb/agent/health"
	"github.com/ebb-lb/ebb/agent/plan/plantest"
	"github.com/ebb-lb/ebb/agent/reconcile"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

const (
	// nodeName is the node the agent of every script runs on.
	nodeName = "here"
	// settled is longer than the loop ever waits before it tries again, and
	// than anything is kept from reuse.
	settled = 45 * time.Second
	// refusal is the probability at which writes are refused at random.
	refusal = 0.3
	// troubled is how long they are refused before everything may settle.
	troubled = 20 * time.Second
	// minInterval is the agent's default.
	minInterval = 50 * time.Millisecond
)

// world is a script being played.
type world struct {
	*testing.T
	script   *script
	rng      *rand.Rand // nil: no write is refused at random
	kernel   *plantest.Kernel
	source   source
	log      *lines
	meanings []string

	health *health.State
	end    func() error // nil: no agent runs

	before, writes uint64 // writes at the last sync, and from the one before to it
}

func newWorld(t *testing.T, s *script, sourceName string, rng *rand.Rand) *world {
	k := plantest.NewKernel(s.capacity)
	k.Tick = func() { k.Now = time.Now() }
	w := &world{T: t, script: s, rng: rng, kernel: k, source: newSource(t, sourceName), log: &lines{}}
	w.trouble(true)
	w.start()
	return w
}

// do carries out one command.
func (w *world) do(c command) {
	w.Helper()
	err := w.try(c)
	if err != nil {
		w.Fatalf("%s: %s: %v", c.at, c.name, err)
	}
}

func (w *world) try(c command) error {
	switch c.name {
	case "put":
		return w.each(c.args, w.source.put)
	case "swap":
		return w.swap(c.args)
	case "remove":
		for _, name := range c.args {
			if err := w.source.remove(name); err != nil {
				return err
			}
		}
		return nil
	case "stop":
		w.stop()
	case "start":
		w.start()
	case "restart":
		w.stop()
		w.start()
	case "sync":
		return w.sync()
	case "dump":
		return w.dump(c.args[0])
	case "log":
		return w.log.find(c.args)
	default:
		return w.tryNumber(c)
	}
	return nil
}

// tryNumber carries out a command whose arguments are numbers.
func (w *world) tryNumber(c command) error {
	var n []int
	for _, arg := range c.args {
		v, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		n = append(n, v)
	}
	switch {
	case c.name == "writes" && len(n) == 1:
		// How many writes there are is different where some are refused; that
		// there was nothing to write is not.
		if (w.rng == nil || n[0] == 0) && w.writes != uint64(n[0]) {
			w.Errorf("%s: %d writes, want %d", c.at, w.writes, n[0])
		}
	case c.name == "flows" && len(n) == 2:
		w.kernel.Flows[maps.BackendID(n[0])] = n[1]
	case c.name == "refuse" && len(n) == 1:
		w.kernel.Fake.FailNext(n[0], errors.New("refused on demand"))
	case c.name == "healthz" && len(n) == 1:
		answer := httptest.NewRecorder()
		w.health.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/healthz", nil))
		if answer.Code != n[0] {
			w.Errorf("%s: status %d, want %d: %s", c.at, answer.Code, n[0], answer.Body)
		}
	default:
		return errors.New("no such command, or wrong arguments")
	}
	return nil
}

// each hands over files of the script, and lets the agent see one after the other.
func (w *world) each(names []string, put func(name string, text []byte) error) error {
	for _, name := range names {
		text, err := w.script.file(name)
		if err != nil {
			return err
		}
		manifest, _, _ := strings.Cut(name, "@")
		if err := put(manifest, text); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) swap(names []string) error {
	d, ok := w.source.(*dirSource)
	if !ok {
		return errors.New("only a directory can be swapped")
	}
	return d.swap(func(put func(string, []byte) error) error { return w.each(names, put) })
}

// start starts an agent on the maps as they are, and lets it read what is there:
// what a command does next reaches it at one time, not file by file as it reads.
func (w *world) start() {
	w.Helper()
	store := service.NewStore(time.Now)
	w.health = &health.State{Timeout: time.Minute, Now: time.Now}
	log := slog.New(slog.NewTextHandler(w.log, nil))
	size := w.kernel.Capacities()
	cfg := reconcile.Config{
		NodeName: nodeName, NodePorts: service.NodePortAddrs{All: w.script.allAddrs}, MinInterval: minInterval, Capacities: size,
	}
	loop, err := reconcile.New(cfg, reconcile.Parts{
		PodLinks: func(bool) {},
		Store:    store, Health: w.health, Live: w.kernel.Live, Log: log,
		Maps: apply.Targets{
			Frontends: w.kernel.Frontends(), ServicePorts: w.kernel.ServicePorts(),
			Backends: w.kernel.Backends(), Slots: w.kernel.Slots(), SourceRanges: w.kernel.SourceRanges(),
			Addresses: w.kernel.Addresses(),
		},
		Runtime: w.kernel.Fake.Runtime(), ServiceCIDRs: w.kernel.Fake.ServiceCIDRs(),
		Attach: func(reconcile.NodeNet) error { return nil },
	})
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	results := make(chan error, 2)
	go func() { results <- w.source.run(ctx, store, log) }()
	go func() { results <- loop.Run(ctx) }()
	w.end = func() error {
		cancel()
		return errors.Join(<-results, <-results)
	}
	synctest.Wait()
}

// stop ends the agent, if one runs, as a crash between two syncs would.
func (w *world) stop() {
	w.Helper()
	if w.end == nil {
		return
	}
	if err := w.end(); err != nil {
		w.Errorf("agent: %v", err)
	}
	w.end = nil
}

// sync lets time pass until nothing more can happen.
func (w *world) sync() error {
	if w.rng != nil {
		pass(troubled)
	}
	w.trouble(false)
	pass(settled)
	w.trouble(true)
	n := w.kernel.Fake.Writes()
	w.before, w.writes = n, n-w.before
	w.log.next()
	if v := w.kernel.Violations(); len(v) > 0 {
		return errors.New(strings.Join(v, "\n"))
	}
	return nil
}

// pass lets time pass in the bubble, whose clock moves only when all else waits.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// trouble begins or ends the refusal of writes at random.
func (w *world) trouble(on bool) {
	rng := w.rng
	if !on {
		rng = nil
	}
	w.kernel.Fake.FailRandom(rng, refusal)
}

// dump compares the maps with what the script expects.
func (w *world) dump(name string) error {
	text, err := dumped(w.kernel.Fake)
	if err != nil {
		return err
	}
	contents, err := w.kernel.Fake.Contents()
	if err != nil {
		return err
	}
	m, err := meaning(contents)
	w.meanings = append(w.meanings, m)
	if w.rng != nil || err != nil {
		return err
	}
	if *update {
		w.script.setFile(name, text)
	}
	want, err := w.script.file(name)
	if err != nil {
		return err
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(text, "\n")); diff != "" {
		w.Errorf("%s: dump %s (-want +got):\n%s", w.script.path, name, diff)
	}
	return nil
}

func dumped(r maps.Reader) (string, error) {
	var text bytes.Buffer
	err := maps.Dump(&text, r)
	return text.String(), err
}

// lines is what was logged: since the last sync, and before it since the one
// before. Safe for concurrent use.
type lines struct {
	mu   sync.Mutex
	last string
	text strings.Builder
}

// Write takes one line of a slog handler.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) next() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = l.text.String()
	l.text.Reset()
}

// find looks for a line with all the words.
func (l *lines) find(words []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.last) {
		if containsAll(line, words) {
			return nil
		}
	}
	return errors.New("no such line in\n" + l.last)
}

func containsAll(line string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(line, w) {
			return false
		}
	}
	return true
}
