// Package reconcile is the one loop that turns state into map writes. It knows
// when to plan, about what, and what to do after a refused write. It
// deliberately knows neither where state comes from, nor how a map is written,
// nor what a device is: all of that is handed to it, so that it runs against
// maps in memory as it does against the kernel'l.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	stdmaps "maps"
	"net/netip"
	"slices"
	"time"

	"github.com/ebb-lb/ebb/agent/apply"
	"github.com/ebb-lb/ebb/agent/health"
	"github.com/ebb-lb/ebb/agent/plan"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

const (
	retryFirst = 500 * time.Millisecond
	retryMost  = 30 * time.Second
)

// Config is what the loop is told once.
type Config struct {
	NodeName string
	// NodeAddrs override the addresses of the Node object.
	NodeAddrs []netip.Addr
	// NodePortCIDRs select the node's addresses that accept node ports; empty:
	// all of them.
	NodePortCIDRs []netip.Prefix
	// MinInterval is the shortest time between two syncs.
	MinInterval time.Duration
	Capacities  plan.Capacities
}

// Runtime is the map of the values that change while programs run.
type Runtime interface {
	Get() (maps.Runtime, error)
	Put(maps.Runtime) error
}

// Parts is what the loop reads from, writes to, and tells. All are needed.
type Parts struct {
	Store   *service.Store
	Maps    apply.Targets
	Runtime Runtime
	// Attach brings programs onto the uplinks there are now, on a node with
	// these addresses.
	Attach func(nodeAddrs []netip.Addr) error
	// Live returns the live flows of an index, negative if that is not known.
	Live   func(maps.BackendID) int
	Health *health.State
	Log    *slog.Logger
}

// Loop syncs. Use New, then Run once.
type Loop struct {
	cfg     Config
	parts   Parts
	devices chan struct{} // devices changed

	planner *plan.Planner
	applied health.Applied // by the last sync of services
	node    service.Node
	full    bool          // the next plan is about everything
	reseed  bool          // the maps may differ from what the planner believes
	retry   time.Duration // 0: nothing failed
}

// New reads the maps and returns a Loop that goes on from them. It writes
// nothing yet.
func New(cfg Config, p Parts) (*Loop, error) {
	have, err := apply.Read(p.Maps)
	if err != nil {
		return nil, err
	}
	return &Loop{
		cfg: cfg, parts: p, devices: make(chan struct{}, 1), full: true,
		planner: plan.New(cfg.Capacities, have),
	}, nil
}

// DevicesChanged makes the Loop attach again. It does not wait, and may be
// called from any goroutine.
func (l *Loop) DevicesChanged() {
	select {
	case l.devices <- struct{}{}:
	default:
	}
}

// Run syncs when something changed, at once if it is idle, gathered if not. It
// returns nil when ctx is done, and leaves the maps as they are.
func (l *Loop) Run(ctx context.Context) error {
	for {
		var again <-chan time.Time
		if l.retry > 0 {
			again = time.After(l.retry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.parts.Store.Changed():
			l.step()
		case <-again:
			l.step()
		case <-l.devices:
			l.attach()
		}
		if !pause(ctx, l.cfg.MinInterval) {
			return nil
		}
	}
}

// pause reports whether d passed before ctx was done.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// step is one sync: what changed since the last one, into the maps.
func (l *Loop) step() {
	if !l.parts.Store.Synced() {
		return
	}
	l.parts.Health.Pending(time.Now())
	failed := l.sync(l.take())
	if failed == nil {
		l.retry = 0
		l.parts.Health.Synced()
		l.parts.Health.Applied(l.applied)
		return
	}
	l.retry = min(max(retryFirst, 2*l.retry), retryMost)
	l.parts.Log.Error("sync", "error", failed, "retry", l.retry)
}

// take returns what the next plan is about. A full plan deletes what it is not
// told of: it is told everything, also when an event comes before the retry.
func (l *Loop) take() service.Changes {
	if l.full {
		l.parts.Store.MarkAllDirty()
	}
	return l.parts.Store.Take()
}

func (l *Loop) sync(ch service.Changes) error {
	if ch.NodeChanged || l.full {
		if l.adopt(ch.Node) && !l.full {
			l.full = true
			ch = l.take() // with all that was taken before, or newer
			l.adopt(ch.Node)
		}
		if err := l.setRuntime(); err != nil {
			return l.again(err)
		}
		l.attach()
	}
	return l.syncServices(ch.Services)
}

func (l *Loop) syncServices(services []service.View) error {
	if l.reseed {
		have, err := apply.Read(l.parts.Maps)
		if err != nil {
			return l.again(err)
		}
		l.planner, l.reseed = l.planner.Reseed(have), false
	}
	p, conflicts := l.planner.Plan(time.Now(), plan.Input{
		Services: services, NodeName: l.cfg.NodeName, NodePortAddrs: l.nodePortAddrs(),
		Live: l.parts.Live, Full: l.full,
	})
	result := apply.Apply(p, l.parts.Maps)
	l.parts.Log.Info("synced", "services", len(services), "full", l.full, "writes", result.Writes)
	l.applied = health.Applied{
		NodeName: l.cfg.NodeName, NodePortAddrs: l.nodePortAddrs(), Services: services, Full: l.full,
	}
	l.full = false
	if len(result.Failed) > 0 {
		l.reseed = true
		return l.again(joined(result.Failed))
	}
	return l.report(conflicts)
}

// again makes the next sync be about everything.
func (l *Loop) again(err error) error {
	l.full = true
	return err
}

// report logs what could not be planned. A conflict between services does not
// go away by trying again; lack of room may.
func (l *Loop) report(failures map[service.Name]error) error {
	room := make(map[service.Name]error)
	for name, err := range failures {
		if isConflict(err) {
			l.parts.Log.Warn("service not completely served", "service", name.String(), "error", err)
			continue
		}
		room[name] = err
	}
	if len(room) == 0 {
		return nil
	}
	return l.again(joined(room))
}

// adopt takes over what the node's object says and reports whether its addresses
// changed: then the next plan has to be about everything, node ports are on them.
func (l *Loop) adopt(n service.Node) bool {
	if len(l.cfg.NodeAddrs) > 0 {
		n.Addrs = l.cfg.NodeAddrs
	}
	changed := !slices.Equal(l.node.Addrs, n.Addrs)
	l.node = n
	l.parts.Health.Node(n)
	return changed
}

// setRuntime writes the addresses flows to other nodes are sent from.
func (l *Loop) setRuntime() error {
	var want maps.Runtime
	for _, a := range l.node.Addrs {
		switch {
		case a.Is4() && !want.SNAT4.IsValid():
			want.SNAT4 = a
		case a.Is6() && !want.SNAT6.IsValid():
			want.SNAT6 = a
		}
	}
	have, err := l.parts.Runtime.Get()
	if err != nil || have == want {
		return err
	}
	return l.parts.Runtime.Put(want)
}

// nodePortAddrs are the node's addresses that accept node ports.
func (l *Loop) nodePortAddrs() []netip.Addr {
	if len(l.cfg.NodePortCIDRs) == 0 {
		return l.node.Addrs
	}
	var out []netip.Addr
	for _, a := range l.node.Addrs {
		if slices.ContainsFunc(l.cfg.NodePortCIDRs, func(p netip.Prefix) bool { return p.Contains(a) }) {
			out = append(out, a)
		}
	}
	return out
}

// attach brings programs onto the uplinks there are now.
func (l *Loop) attach() {
	err := l.parts.Attach(l.node.Addrs)
	if err != nil {
		l.parts.Log.Error("attach", "error", err)
	}
	l.parts.Health.Attached(err)
}

// isConflict reports whether err is only about frontends others have.
func isConflict(err error) bool {
	var c *plan.ConflictError
	return errors.As(err, &c)
}

func joined(failed map[service.Name]error) error {
	names := slices.SortedFunc(stdmaps.Keys(failed), service.Name.Compare)
	return fmt.Errorf("%d services not synced, first %s: %w", len(names), names[0], failed[names[0]])
}
