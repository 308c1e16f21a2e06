package responder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const patience = 20 * time.Second

// responders run in this process.
type responders struct {
	t   *testing.T
	dir string
	mu  sync.Mutex
	all []chan error
}

func newResponders(t *testing.T) *responders {
	t.Helper()
	dir, err := os.MkdirTemp("", "ebb-") // short: there is a socket in it
	if err != nil {
		t.Fatal(err)
	}
	r := &responders{t: t, dir: dir}
	t.Cleanup(func() {
		if err := errors.Join(Remove(dir), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
		for i := range r.count() {
			r.awaitEnd(i)
		}
	})
	return r
}

func (r *responders) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

// start starts one; it may take over from others.
func (r *responders) start(linger time.Duration) int {
	return r.startTold(context.Background(), Waits{Agent: linger})
}

// startTold starts one that is to end when told is done.
func (r *responders) startTold(told context.Context, waits Waits) int {
	ended := make(chan error, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, ended)
	go func() { ended <- Run(told, r.dir, waits, slog.New(slog.DiscardHandler)) }()
	return len(r.all) - 1
}

// awaitServing waits until somebody answers on the control socket.
func (r *responders) awaitServing() {
	r.t.Helper()
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		if pid, err := PID(r.dir); pid != 0 && err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal("no responder serves")
		}
	}
}

func (r *responders) awaitEnd(i int) {
	r.t.Helper()
	r.mu.Lock()
	ended := r.all[i]
	r.mu.Unlock()
	select {
	case err := <-ended:
		if err != nil {
			r.t.Errorf("responder %d: %v", i, err)
		}
		ended <- nil
	case <-time.After(patience):
		r.t.Fatalf("responder %d does not end", i)
	}
}

// agent is a client that says what it is told to.
type agent struct {
	cancel  context.CancelFunc
	ended   chan error
	reports chan Status
}

func (r *responders) startAgent(u Update, start func() error) *agent {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	a := &agent{cancel: cancel, ended: make(chan error, 1), reports: make(chan Status, 1000)}
	c := &Client{
		Dir: r.dir, Start: start, Update: func() Update { return u }, Report: func(s Status) { a.reports <- s },
		Changed: make(chan struct{}), Log: slog.New(slog.DiscardHandler),
	}
	go func() { a.ended <- c.Run(ctx) }()
	r.t.Cleanup(a.stop)
	return a
}

func (a *agent) stop() {
	a.cancel()
	a.ended <- <-a.ended
}

// heard waits until a responder has heard of the agent since now.
func (a *agent) heard(t *testing.T) {
	t.Helper()
	for len(a.reports) > 0 {
		<-a.reports
	}
	select {
	case <-a.reports:
	case <-time.After(patience):
		t.Fatal("no responder has heard of the agent")
	}
}

func TestAnswersOutliveTheAgent(t *testing.T) {
	r := newResponders(t)
	node, port := freePort(t), freePort(t)
	start := func() error { r.start(time.Hour); return nil }
	first := r.startAgent(healthy(fmt.Sprint(":", node), port, 1, 1), start)
	first.heard(t)
	first.stop()
	for _, url := range []string{on4(node) + "healthz", on4(port), on6(port)} {
		wantStatus(t, url, http.StatusOK)
	}
	second := r.startAgent(Update{Addr: fmt.Sprint(":", node), StaleAfter: time.Minute}, start)
	second.heard(t)
	wantStatus(t, on4(node)+"healthz", http.StatusOK) // the second does not know yet
	wantStatus(t, on4(port), http.StatusOK)
	if n := r.count(); n != 1 {
		t.Errorf("%d responders were started, want 1", n)
	}
}

// Responders succeed each other while probes go on: none is refused or wrong.
func TestASuccessorTakesOverWithoutAGap(t *testing.T) {
	const successions, probers = 20, 4
	r := newResponders(t)
	node, port := freePort(t), freePort(t)
	current := r.start(time.Hour)
	a := r.startAgent(healthy(fmt.Sprint(":", node), port, 1, 1), func() error { return nil })
	a.heard(t)
	ctx, cancel := context.WithCancel(t.Context())
	var asked atomic.Int64
	var wg sync.WaitGroup
	for i := range probers {
		url := []string{on4(node) + "healthz", on6(node) + "livez", on4(port), on6(port)}[i%4]
		wg.Go(func() {
			for ctx.Err() == nil {
				asked.Add(1)
				if code, body, err := ask(url); err != nil || code != http.StatusOK {
					t.Errorf("%s: status %d, %v, %v", url, code, body, err)
				}
			}
		})
	}
	for range successions {
		before := asked.Load()
		next := r.start(time.Hour)
		r.awaitEnd(current)
		current = next
		for asked.Load() < before+2*probers {
			a.heard(t)
		}
	}
	cancel()
	wg.Wait()
	t.Logf("%d probes during %d successions", asked.Load(), successions)
}

// As in a rolling update: one is told to end before the next one has begun.
func TestAResponderThatIsToldToEndWaitsForASuccessor(t *testing.T) {
	r := newResponders(t)
	node := freePort(t)
	told, tell := context.WithCancel(t.Context())
	first := r.startTold(told, Waits{Agent: time.Hour, Successor: time.Hour})
	a := r.startAgent(healthy(fmt.Sprint(":", node), 0, 0, 0), func() error { return nil })
	a.heard(t)
	a.stop()
	tell()
	wantStatus(t, on4(node)+"healthz", http.StatusOK)
	told, tell = context.WithCancel(t.Context())
	second := r.startTold(told, Waits{Agent: time.Hour, Successor: 10 * time.Millisecond})
	r.awaitEnd(first)
	wantStatus(t, on4(node)+"healthz", http.StatusOK)
	tell() // nobody comes
	r.awaitEnd(second)
	if pid, err := PID(r.dir); pid != 0 || err != nil {
		t.Errorf("still there: %d, %v", pid, err)
	}
}

func TestAResponderThatEndsIsReplaced(t *testing.T) {
	r := newResponders(t)
	node := freePort(t)
	a := r.startAgent(healthy(fmt.Sprint(":", node), 0, 0, 0), func() error { r.start(time.Hour); return nil })
	a.heard(t)
	if err := Quit(r.dir); err != nil {
		t.Fatal(err)
	}
	r.awaitEnd(0)
	a.heard(t)
	wantStatus(t, on4(node)+"healthz", http.StatusOK)
	if n := r.count(); n != 2 {
		t.Errorf("%d responders were started, want 2", n)
	}
}

func TestAResponderWithoutAnAgentEnds(t *testing.T) {
	r := newResponders(t)
	r.awaitEnd(r.start(10 * time.Millisecond))
	if pid, err := PID(r.dir); pid != 0 || err != nil {
		t.Errorf("still there: %d, %v", pid, err)
	}
}

func TestAnAgentThatCannotStartAResponderSaysSo(t *testing.T) {
	r := newResponders(t)
	a := r.startAgent(healthy("", 0, 0, 0), func() error { return os.ErrPermission })
	if err := <-a.ended; !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v", err)
	}
	a.ended <- nil
}

func TestRemoveLeavesNothing(t *testing.T) {
	r := newResponders(t)
	i := r.start(time.Hour)
	a := r.startAgent(healthy("", 0, 0, 0), nil)
	a.heard(t)
	a.stop()
	if err := Remove(r.dir); err != nil {
		t.Fatal(err)
	}
	r.awaitEnd(i)
	if _, err := os.Stat(r.dir); !os.IsNotExist(err) {
		t.Errorf("left: %v", err)
	}
	if err := Remove(r.dir); err != nil {
		t.Errorf("twice: %v", err)
	}
}

// As in a container whose root is read-only.
func TestRemoveLeavesADirectoryThatIsMounted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts file systems")
	}
	parent := t.TempDir()
	dir := filepath.Join(parent, "state")
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the mounts end with the thread
		done <- errors.Join(unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS),
			unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""),
			unix.Mount("tmpfs", parent, "tmpfs", 0, ""), os.Mkdir(dir, 0o755),
			unix.Mount("tmpfs", dir, "tmpfs", 0, ""), os.WriteFile(lockPath(dir), nil, 0o600),
			unix.Mount("", parent, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""), Remove(dir))
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Whoever comes while a responder ends may be hung up on; it ends all the same.
func TestSeveralMayEndAResponderAtOnce(t *testing.T) {
	for range 50 {
		r := newResponders(t)
		ended := r.start(time.Hour)
		r.awaitServing()
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				if err := Quit(r.dir); err != nil {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		r.awaitEnd(ended)
	}
}
