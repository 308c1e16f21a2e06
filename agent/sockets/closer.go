package sockets

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ebb-lb/ebb/loader/sockdiag"
	"github.com/ebb-lb/ebb/maps"
)

const (
	// settle is how long after a change sockets are looked through once more: one
	// that was given its backend just before may not have been connected yet.
	settle = time.Second
	// rest is how much longer than a look the pause after it is: looking takes at
	// most a twentieth of a core, however often backends go. With the default sizes
	// a look takes 20 to 70 ms, with no and 100000 sockets (Linux 6.18).
	rest = 20
)

// Closer closes sockets. Use New, then Run once.
type Closer struct {
	set      *maps.Set
	resetTCP bool
	reach    *Reach // nil: no socket is given a backend
	log      *slog.Logger
	// wake is for Close, early for CloseEarly.
	wake, early chan struct{}

	// Of CloseEarly: the frontends at the last call, and how often it is yet to look.
	looked map[maps.Frontend]maps.Service
	looks  int
}

// New returns a Closer of the sockets in set; with resetTCP also of connections, with
// reach also of those that connected too early.
func New(set *maps.Set, resetTCP bool, reach *Reach, log *slog.Logger) *Closer {
	return &Closer{set: set, resetTCP: resetTCP, reach: reach, log: log, wake: make(chan struct{}, 1), early: make(chan struct{}, 1)}
}

// Wake tells that backends may have gone, or frontends come. It does not wait, and may be called from
// any goroutine.
func (c *Closer) Wake() {
	for _, wake := range []chan struct{}{c.wake, c.early} {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// Run closes sockets until ctx is done: at once, for what happened while no agent
// was there, and after each Wake. Where the kernel cannot do it, it says so, and
// does nothing.
func (c *Closer) Run(ctx context.Context) error {
	if err := sockdiag.Probe(); err != nil {
		c.log.Warn("sockets connected to a backend that is gone, or to a service before it was there, are left alone", "error", err)
		return nil
	}
	var g errgroup.Group
	g.Go(func() error {
		looks := 0
		repeat(ctx, c.wake, func(woken bool) (more bool) {
			if woken {
				looks = 2 // now, and once more
			}
			c.close()
			looks--
			return looks > 0
		})
		return nil
	})
	g.Go(func() error {
		repeat(ctx, c.early, func(bool) (more bool) { return c.closeEarly() })
		return nil
	})
	return g.Wait()
}

// repeat calls look, at once and each time it is woken, and while there is more to do
// also after a while, until ctx is done.
func repeat(ctx context.Context, wake <-chan struct{}, look func(woken bool) (more bool)) {
	woken := true
	for {
		began := time.Now()
		more := look(woken)
		if !pause(ctx, rest*time.Since(began)) {
			return
		}
		var again <-chan time.Time
		if more {
			again = time.After(settle)
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
			woken = true
		case <-again:
			woken = false
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (c *Closer) close() {
	closed, err := c.Close()
	if err != nil {
		c.log.Error("close sockets", "error", err)
	}
	if closed > 0 {
		c.log.Info("closed sockets whose backend is gone", "sockets", closed)
	}
}

func (c *Closer) closeEarly() (more bool) {
	closed, more, err := c.CloseEarly()
	if err != nil {
		c.log.Error("close sockets", "error", err)
	}
	if closed > 0 {
		c.log.Info("closed sockets that connected to a service before it was there", "sockets", closed)
	}
	return more
}

// Close looks through all entries once, and returns how many sockets it closed.
// An error concerns some of them; the others were closed.
func (c *Closer) Close() (closed int, err error) {
	leaving, err := c.leaving()
	if err != nil {
		return 0, err
	}
	want := make(map[uint64]bool)
	for p := range leaving {
		want[p.netns] = true
	}
	err = sockdiag.Visit(want, func(netns uint64) error {
		var errs []error
		for _, proto := range []maps.Proto{maps.UDP, maps.TCP} {
			n, err := c.closeIn(leaving[place{netns, proto}], proto)
			closed += n
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	return closed, err
}

// leaving are the entries whose sockets must leave their backend.
func (c *Closer) leaving() (map[place][]Entry, error) {
	backends, err := c.set.Backends().All()
	if err != nil {
		return nil, err
	}
	out := make(map[place][]Entry)
	err = c.set.Sockets().Each(func(k maps.SocketKey, v maps.SocketPeer) bool {
		if e := (Entry{k, v}); e.Leaves(backends, c.resetTCP) {
			p := place{v.Netns, k.Proto}
			out[p] = append(out[p], e)
		}
		return true
	})
	return out, err
}

// closeIn works in the namespace of the calling thread.
func (c *Closer) closeIn(entries []Entry, proto maps.Proto) (closed int, err error) {
	if len(entries) == 0 {
		return 0, nil
	}
	sockets, err := find(entries, proto)
	if err != nil {
		return 0, err
	}
	fate := Decide(entries, sockets)
	errs := []error{c.forget(fate.Vanished)}
	for _, s := range fate.Close {
		err := sockdiag.Destroy(s.Socket)
		if errors.Is(err, sockdiag.ErrNotFound) {
			continue // the next look tells why
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		closed++
		errs = append(errs, c.forget(s.Entries))
	}
	return closed, errors.Join(errs...)
}

func (c *Closer) forget(keys []maps.SocketKey) error {
	var errs []error
	for _, k := range keys {
		errs = append(errs, c.set.Sockets().Delete(k))
	}
	return errors.Join(errs...)
}

// find returns the sockets of the namespace by their cookie. If some of the entries
// are missing it looks again: a list may miss what is there.
func find(entries []Entry, proto maps.Proto) (map[uint64]sockdiag.Socket, error) {
	found := make(map[uint64]sockdiag.Socket)
	for range 2 {
		all, err := sockdiag.List(proto)
		if err != nil {
			return nil, err
		}
		for _, s := range all {
			found[s.Cookie] = s
		}
		if complete(entries, found) {
			break
		}
	}
	return found, nil
}

func complete(entries []Entry, found map[uint64]sockdiag.Socket) bool {
	for _, e := range entries {
		if _, ok := found[e.Key.Cookie]; !ok {
			return false
		}
	}
	return true
}
