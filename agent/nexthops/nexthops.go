// Package nexthops keeps what the datapath remembers of routes right: it tells
// programs when routes have changed, and has the kernel confirm the neighbours
// packets are sent to, which it does by itself only for packets of its own. It
// knows no Service and no flow.
//
// Neighbours are used (NTF_USE), not managed (NTF_EXT_MANAGED). A managed entry is
// probed for ever and outlives the agent, and clients on the link are next hops
// too: those that were here once would fill the table. One that is used stays an
// ordinary entry, goes stale and is collected when nobody sends to it any more.
package nexthops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
)

const (
	// interval is how often neighbours are looked at. What an event tells is done at
	// once.
	interval = 2 * time.Second
	// retry is when to subscribe again after that failed.
	retry = 5 * time.Second
	// lease is for how many ticks programs rely on the Keeper: a few rounds, and no
	// longer, because nobody tells of changes meanwhile if the agent is killed.
	lease = 6
	// lately is within how many ticks a next hop must have been used to matter. A
	// flow in use looks its route up every maps.RouteTicks, or takes one that is as old
	// from another; one that was not in use looks it up with its next packet.
	lately = 2*maps.RouteTicks + lease
)

// Parts are what a Keeper works with.
type Parts struct {
	// Routes is what programs are told. Nobody else may write it.
	Routes interface{ Put(maps.RouteState) error }
	// InUse are the next hops programs have sent to.
	InUse interface {
		Each(func(maps.NextHop, maps.Neighbour) bool) error
		Lookup(maps.NextHop) (maps.Neighbour, bool, error)
	}
	// Clock tells ticks.
	Clock interface{ Now() (uint32, error) }
	// Kernel has the routes and neighbours.
	Kernel Kernel
	// Secured tells whether programs know of IPsec policies. Changed is called when they
	// know of other ones.
	Secured func() bool
	Log     *slog.Logger
}

// Kernel has routes and neighbours; [loader] provides one.
type Kernel interface {
	// Watch calls tell once it hears of everything, then with news, until ctx ends.
	Watch(ctx context.Context, tell func(loader.RouteNews)) error
	Neighbours() ([]loader.Neighbour, error)
	Use(maps.NextHop) error
	AnyMultipath() (bool, error)
	AnyBySource() (bool, error)
}

// Keeper does it. Use New, then Run once.
type Keeper struct {
	parts   Parts
	changed chan struct{}
	// state is what programs are to know, written what they know.
	state, written maps.RouteState
	// macs are the addresses of the neighbours that are valid.
	macs    map[maps.NextHop]string
	failing bool
}

// New returns a Keeper that has done nothing yet.
func New(p Parts) *Keeper {
	return &Keeper{parts: p, changed: make(chan struct{}, 1), macs: make(map[maps.NextHop]string)}
}

// Changed tells the Keeper of a change that no event of routes tells of: by which
// devices XDP may send, what may have to be encrypted. It does not wait, and may be called from any goroutine.
func (k *Keeper) Changed() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// Run works until ctx ends, and returns nil. Programs do without it from then on, and
// while the kernel's news cannot be had.
func (k *Keeper) Run(ctx context.Context) error {
	for {
		err := k.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		k.report(err)
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return nil
		}
	}
}

// follow works until ctx ends or there are no news any more.
func (k *Keeper) follow(ctx context.Context) error {
	news := make(chan loader.RouteNews)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return k.parts.Kernel.Watch(ctx, func(n loader.RouteNews) {
			select {
			case news <- n:
			case <-ctx.Done():
			}
		})
	})
	g.Go(func() error { return k.loop(ctx, news) })
	return g.Wait()
}

func (k *Keeper) loop(ctx context.Context, news <-chan loader.RouteNews) error {
	select {
	case <-news: // the first: from now on nothing goes unheard
	case <-ctx.Done():
		return nil
	}
	k.report(k.start())
	rounds := time.NewTicker(interval)
	defer rounds.Stop()
	for {
		select {
		case <-ctx.Done():
			return k.leave()
		case <-rounds.C:
			k.report(k.round())
		case <-k.changed:
			k.report(k.bump())
		case n := <-news:
			k.report(k.hear(n))
		}
	}
}

// report logs the first error of a row, and its end.
func (k *Keeper) report(err error) {
	switch {
	case err != nil && !k.failing:
		k.parts.Log.Warn("routes are looked up every second: following them failed", "err", err)
	case err == nil && k.failing:
		k.parts.Log.Info("routes are followed again")
	}
	k.failing = err != nil
}

// start makes programs forget what nobody watched over, and learns how things are.
func (k *Keeper) start() error {
	multipath, err := k.parts.Kernel.AnyMultipath()
	k.state = maps.RouteState{Multipath: multipath || err != nil}
	return errors.Join(err, k.rules(), k.round())
}

// rules learns whether rules look at where packets come from.
func (k *Keeper) rules() error {
	bySource, err := k.parts.Kernel.AnyBySource()
	k.state.BySource = bySource || err != nil
	return err
}

// leave ends the lease.
func (k *Keeper) leave() error {
	now, err := k.parts.Clock.Now()
	if err != nil {
		return err
	}
	k.state.Until, k.state.Secured = now-1, k.parts.Secured()
	return k.parts.Routes.Put(k.state)
}

// round has the neighbours in use confirmed that need it, and extends the lease if
// that went well.
func (k *Keeper) round() error {
	now, err := k.parts.Clock.Now()
	if err != nil {
		return err
	}
	used, err := k.inUse(now)
	if err != nil {
		return err
	}
	if len(used) == 0 {
		return k.extend(false)
	}
	all, err := k.parts.Kernel.Neighbours()
	if err != nil {
		return err
	}
	moved, errs := k.compare(all, used), []error(nil)
	for _, n := range all {
		if used[n.NextHop] {
			errs = append(errs, k.confirm(n))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return k.extend(moved)
}

// inUse reads which next hops were used lately.
func (k *Keeper) inUse(now uint32) (map[maps.NextHop]bool, error) {
	used := make(map[maps.NextHop]bool)
	err := k.parts.InUse.Each(func(h maps.NextHop, n maps.Neighbour) bool {
		if isLate(n, now) {
			used[h] = true
		}
		return true
	})
	return used, err
}

// isUsed reports whether h was used lately.
func (k *Keeper) isUsed(h maps.NextHop) (bool, error) {
	now, err := k.parts.Clock.Now()
	if err != nil {
		return false, err
	}
	n, ok, err := k.parts.InUse.Lookup(h)
	return ok && isLate(n, now), err
}

// isLate reports whether n was used lately. A program may have read the clock later
// than the caller.
func isLate(n maps.Neighbour, now uint32) bool { return int32(now-n.Used) <= lately }

// compare takes over what the kernel's table says, and reports whether programs may
// have the wrong address of a next hop they use.
func (k *Keeper) compare(all []loader.Neighbour, used map[maps.NextHop]bool) bool {
	macs := make(map[maps.NextHop]string, len(all))
	for _, n := range all {
		if n.Valid {
			macs[n.NextHop] = n.MAC
		}
	}
	moved := false
	for h, mac := range k.macs {
		if now, valid := macs[h]; used[h] && (!valid || now != mac) {
			moved = true
		}
	}
	k.macs = macs
	return moved
}

// confirm has n checked if the kernel would do so for a packet.
func (k *Keeper) confirm(n loader.Neighbour) error {
	if !n.Stale || n.Foreign {
		return nil
	}
	return k.parts.Kernel.Use(n.NextHop)
}

// hear does what news ask for.
func (k *Keeper) hear(n loader.RouteNews) error {
	k.state.Multipath = k.state.Multipath || n.Multipath
	if n.Lost {
		multipath, err := k.parts.Kernel.AnyMultipath()
		k.state.Multipath = k.state.Multipath || multipath || err != nil
	}
	changed := n.Changed || n.Lost
	var errs []error
	if n.Rules || n.Lost {
		errs = append(errs, k.rules())
	}
	for _, nb := range n.Neighbours {
		moved, err := k.neighbour(nb)
		changed = changed || moved
		errs = append(errs, err)
	}
	if changed {
		errs = append(errs, k.bump())
	}
	return errors.Join(errs...)
}

// neighbour takes over what has become of one, has it confirmed if it is in use,
// and reports whether programs may have another address of it.
func (k *Keeper) neighbour(n loader.Neighbour) (moved bool, err error) {
	mac, was := k.macs[n.NextHop]
	if n.Valid {
		k.macs[n.NextHop] = n.MAC
	} else {
		delete(k.macs, n.NextHop)
	}
	moved = was && (!n.Valid || n.MAC != mac)
	if !moved && !n.Stale {
		return false, nil
	}
	used, err := k.isUsed(n.NextHop)
	if err != nil || !used {
		return false, err
	}
	return moved, k.confirm(n)
}

// bump makes flows look their routes up again.
func (k *Keeper) bump() error {
	return k.put(func(now uint32) { k.change(now) })
}

// extend renews the lease. If it was over, nobody can tell what has changed.
func (k *Keeper) extend(moved bool) error {
	return k.put(func(now uint32) {
		if moved || int32(k.state.Until-now) < 0 {
			k.change(now)
		}
		k.state.Until = now + lease
	})
}

// change marks the tick after this one too: this one may be over by the time
// programs read it, and some flows have had their look at it.
func (k *Keeper) change(now uint32) { k.state.Changed = now + 1 }

// put edits the state, and writes it if programs know another one.
func (k *Keeper) put(edit func(now uint32)) error {
	now, err := k.parts.Clock.Now()
	if err != nil {
		return err
	}
	k.state.Secured = k.parts.Secured()
	if edit(now); k.state == k.written {
		return nil
	}
	if err := k.parts.Routes.Put(k.state); err != nil {
		return fmt.Errorf("tell programs of routes: %w", err)
	}
	k.written = k.state
	return nil
}
