// Package reconcile is the one loop that turns state into map writes. It knows
// when to plan, about what, and what to do after a refused write. It
// deliberately knows neither where state comes from, nor how a map is written,
// nor what a device is: all of that is handed to it, so that it runs against
// maps in memory as it does against the kernel's.
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
	"github.com/ebb-lb/ebb/agent/ids"
	"github.com/ebb-lb/ebb/agent/plan"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

const (
	retryFirst = 500 * time.Millisecond
	retryMost  = 30 * time.Second
	// roomMost is retryMost where only room is lacking: it comes back by itself,
	// and only the services that lack it are planned.
	roomMost = 5 * time.Second
)

// Config is what the loop is told once.
type Config struct {
	NodeName string
	// NodeAddrs override the addresses of the Node object.
	NodeAddrs []netip.Addr
	// PodCIDRs tells by which ranges pods are known, on a node such as this; nil:
	// by none.
	PodCIDRs func(service.Node) []netip.Prefix
	// NodePorts are the node's addresses that accept node ports.
	NodePorts service.NodePortAddrs
	// HostNetns is the cookie of the node's network namespace; 0: not known.
	HostNetns uint64
	// NodePortsAnywhere: sockets of this node may dial node ports at any of its
	// addresses.
	NodePortsAnywhere bool
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
	// ServiceCIDRs are the ranges that the addresses of Services are taken from.
	ServiceCIDRs CIDRs
	// Attach brings programs onto the uplinks there are now.
	Attach func(NodeNet) error
	// PodLinks is told in each sync whether any Service needs packets of pods
	// translated: if so before its frontends are written, if not any more, after.
	PodLinks func(needed bool)
	// Live returns the live flows of an index, negative if that is not known.
	Live   func(maps.BackendID) int
	Health *health.State
	// Done is told of each sync, after Health; nil: nobody asks.
	Done func(Report)
	Log  *slog.Logger
}

// NodeNet is what the node's object says of its network.
type NodeNet struct {
	// Addrs are the node's addresses, PodCIDRs the ranges its pods have theirs from.
	Addrs    []netip.Addr
	PodCIDRs []netip.Prefix
	// Known: the source has been heard. If not, both may be lacking.
	Known bool
	// Object: it has an object of the node's name.
	Object bool
}

// Loop syncs. Use New, then Run once.
type Loop struct {
	cfg     Config
	parts   Parts
	devices chan struct{} // devices changed

	planner *plan.Planner
	applied health.Applied // by the last sync of services
	node    service.Node
	heard   bool                  // node is what the source says
	cidrs   []netip.Prefix        // of Services
	span    *span                 // of Services' addresses; nil: not known yet
	full    bool                  // the next plan is about everything
	reseed  bool                  // the maps may differ from what the planner believes
	retry   time.Duration         // 0: nothing failed
	failing map[service.Name]bool // the services not completely served; true: for a conflict
	packets map[service.Name]bool // the services that need packets of pods translated
	told    time.Time             // when a failed sync was last logged
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
		failing: make(map[service.Name]bool), packets: make(map[service.Name]bool),
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
	r := Report{Begin: time.Now()}
	l.sync(l.take(), &r)
	r.End, r.Incomplete, r.Used = time.Now(), len(l.failing), l.planner.Used()
	if r.Err == nil {
		l.parts.Health.Synced(l.applied)
	}
	if l.parts.Done != nil {
		l.parts.Done(r)
	}
	l.backOff(r.Err)
}

// backOff decides when to try again, if there is something to try.
func (l *Loop) backOff(err error) {
	if err == nil {
		l.retry = 0
		return
	}
	most := retryMost
	if !l.full {
		most = roomMost
	}
	l.retry = min(max(retryFirst, 2*l.retry), most)
	// Events come before the retry: a burst of them shall not be one of lines.
	if now := time.Now(); now.Sub(l.told) >= l.retry {
		l.told = now
		l.parts.Log.Error("sync", "error", err, "retry", l.retry)
	}
}

// take returns what the next plan is about. A full plan deletes what it is not
// told of: it is told everything, also when an event comes before the retry.
func (l *Loop) take() service.Changes {
	if l.full {
		l.parts.Store.MarkAllDirty()
	}
	ch := l.parts.Store.Take()
	if l.adopt(ch.Node) && !l.full {
		l.full = true
		l.parts.Store.PutBack(ch)
		return l.take()
	}
	return ch
}

func (l *Loop) sync(ch service.Changes, r *Report) {
	r.Services, r.Full = ch.Services, l.full
	if ch.NodeChanged || l.full {
		if err := l.setRuntime(); err != nil {
			r.Err = l.again(ch, err)
			return
		}
		l.attach()
	}
	if l.cidrs = ch.ServiceCIDRs; ch.ServiceCIDRsChanged || l.full {
		if err := setCIDRs(l.parts.ServiceCIDRs, l.cidrs); err != nil {
			r.Err = l.again(ch, err)
			return
		}
	}
	l.syncServices(ch, r)
}

func (l *Loop) syncServices(ch service.Changes, r *Report) {
	if l.reseed {
		have, err := apply.Read(l.parts.Maps)
		if err != nil {
			r.Err = l.again(ch, err)
			return
		}
		l.planner, l.reseed = l.planner.Reseed(have), false
	}
	p, failed := l.planner.Plan(time.Now(), plan.Input{
		Services: ch.Services, NodeName: l.cfg.NodeName, Zone: l.node.Zone,
		NodePortAddrs: l.cfg.NodePorts.Of(l.node.Addrs), NodePortsAnywhere: l.cfg.NodePortsAnywhere,
		PodCIDRs: l.podCIDRs(), Live: l.parts.Live, Full: l.full,
	})
	r.Planned = time.Now()
	l.notePackets(ch.Services)
	result := l.write(p)
	level := slog.LevelDebug // many a second, under a burst
	if l.full {
		level = slog.LevelInfo
	}
	l.parts.Log.Log(context.Background(), level, "synced", "services", len(ch.Services), "full", l.full, "writes", result.Writes)
	l.applied = health.Applied{
		NodeName: l.cfg.NodeName, NodePortAddrs: l.cfg.NodePorts.Of(l.node.Addrs),
		Services: ch.Services, Full: l.full,
	}
	err := l.respan(p, l.full || ch.ServiceCIDRsChanged)
	l.full, r.Writes = false, result.Writes
	if len(result.Failed) > 0 {
		l.reseed, l.full = true, true
		stdmaps.Copy(failed, result.Failed)
	}
	r.Failed = failed
	l.note(ch.Services, failed)
	r.Err = l.later(ch, failed)
	if err != nil {
		r.Err = errors.Join(r.Err, l.again(ch, err))
	}
}

// notePackets remembers which services need packets of pods translated.
func (l *Loop) notePackets(planned []service.View) {
	if l.full {
		clear(l.packets)
	}
	for _, v := range planned {
		if v.Service != nil && plan.NeedsPackets(v.Service, l.podCIDRs()) {
			l.packets[v.Name] = true
		} else {
			delete(l.packets, v.Name)
		}
	}
}

// write carries out p. Packets of pods are translated from before sockets leave
// frontends to them until after.
func (l *Loop) write(p plan.Plan) apply.Result {
	needed := len(l.packets) > 0
	if needed {
		l.parts.PodLinks(true)
	}
	result := apply.Apply(p, l.parts.Maps)
	if !needed && len(result.Failed) == 0 {
		l.parts.PodLinks(false)
	}
	return result
}

// again makes the next sync be about everything, and still about ch.
func (l *Loop) again(ch service.Changes, err error) error {
	l.full = true
	l.parts.Store.PutBack(ch)
	return err
}

// note remembers which services are not completely served, and logs which are
// new: the numbers in an error change with every sync.
func (l *Loop) note(planned []service.View, failed map[service.Name]error) {
	for _, v := range planned {
		if failed[v.Name] == nil {
			delete(l.failing, v.Name)
		}
	}
	for name, err := range failed {
		if conflict, known := l.failing[name]; !known || conflict != isConflict(err) {
			l.failing[name] = isConflict(err)
			l.parts.Log.Warn("service not completely served", "service", name.String(), "error", err)
		}
	}
}

// later makes the next sync be about the services that failed in this one, and
// those of them that changed keep the time of the change. Conflicts between
// services do not go away by trying again.
func (l *Loop) later(ch service.Changes, failed map[service.Name]error) error {
	retry := stdmaps.Clone(failed)
	stdmaps.DeleteFunc(retry, func(_ service.Name, err error) bool { return isConflict(err) })
	if len(retry) == 0 {
		return nil
	}
	rest := slices.DeleteFunc(slices.Clone(ch.Services), func(v service.View) bool { return retry[v.Name] == nil })
	l.parts.Store.PutBack(service.Changes{Services: rest})
	l.parts.Store.MarkDirty(slices.Collect(stdmaps.Keys(retry))...)
	return joined(retry)
}

// adopt takes over what the node's object says and reports whether its addresses,
// its zone or its pods' ranges changed: then the next plan has to be about
// everything, node ports, hints and source ranges depend on them.
func (l *Loop) adopt(n service.Node) bool {
	if len(l.cfg.NodeAddrs) > 0 {
		n.Addrs = l.cfg.NodeAddrs
	}
	was, pods := l.node, l.podCIDRs()
	l.node, l.heard = n, true
	l.parts.Health.Node(n)
	return !slices.Equal(was.Addrs, n.Addrs) || was.Zone != n.Zone || !slices.Equal(pods, l.podCIDRs()) ||
		!slices.Equal(was.PodCIDRs, n.PodCIDRs)
}

// setRuntime writes the addresses flows to other nodes are sent from, which
// namespace is the node's, and the span of Services' addresses once it is known.
func (l *Loop) setRuntime() error {
	have, err := l.parts.Runtime.Get()
	if err != nil {
		return err
	}
	want := maps.Runtime{HostNetns: l.cfg.HostNetns, NodeBits: have.NodeBits, Services4: have.Services4, Services6: have.Services6}
	if l.span != nil {
		want.Services4, want.Services6 = l.span.runtime()
	}
	for _, a := range l.node.Addrs {
		switch {
		case a.Is4() && !want.SNAT4.IsValid():
			want.SNAT4 = a
		case a.Is6() && !want.SNAT6.IsValid():
			want.SNAT6 = a
		}
	}
	if have == want {
		return nil
	}
	return l.parts.Runtime.Put(want)
}

// podCIDRs returns by which ranges pods are known.
func (l *Loop) podCIDRs() []netip.Prefix {
	if l.cfg.PodCIDRs == nil {
		return nil
	}
	return l.cfg.PodCIDRs(l.node)
}

// attach brings programs onto the uplinks there are now.
func (l *Loop) attach() {
	err := l.parts.Attach(NodeNet{Addrs: l.node.Addrs, PodCIDRs: l.node.PodCIDRs, Known: l.heard, Object: l.node.Known})
	if err != nil {
		l.parts.Log.Error("attach", "error", err)
	}
	l.parts.Health.Attached(err)
}

// isConflict reports whether err is only about frontends others have.
func isConflict(err error) bool {
	var c *plan.ConflictError
	return errors.As(err, &c) && !errors.Is(err, ids.ErrFull)
}

func joined(failed map[service.Name]error) error {
	names := slices.SortedFunc(stdmaps.Keys(failed), service.Name.Compare)
	return fmt.Errorf("%d services not synced, first %s: %w", len(names), names[0], failed[names[0]])
}
