package agent

import (
	"context"
	"fmt"
	"log/slog"
	stdmaps "maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ebb-lb/ebb/agent/apply"
	"github.com/ebb-lb/ebb/agent/config"
	"github.com/ebb-lb/ebb/agent/health"
	"github.com/ebb-lb/ebb/agent/plan"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
)

const (
	retryFirst = 500 * time.Millisecond
	retryMost  = 30 * time.Second
)

// syncer is the one loop that turns state into map writes.
type syncer struct {
	cfg     config.Config
	set     *maps.Set
	targets apply.Targets
	store   *service.Store
	health  *health.State
	live    *liveCounts
	log     *slog.Logger

	attacher *loader.Attacher
	devices  chan struct{} // devices changed

	planner *plan.Planner
	node    service.Node
	full    bool          // the next plan is about everything
	reseed  bool          // the maps may differ from what the planner believes
	retry   time.Duration // 0: nothing failed
}

func newSyncer(cfg config.Config, k *kernel, store *service.Store, state *health.State, live *liveCounts, log *slog.Logger) (*syncer, error) {
	s := &syncer{
		cfg: cfg, set: k.set, store: store, health: state, live: live, log: log,
		targets: apply.Targets{
			Frontends: k.set.Frontends(), ServicePorts: k.set.ServicePorts(),
			Backends: k.set.Backends(), Slots: k.set.Slots(),
		},
		attacher: k.attacher, devices: make(chan struct{}, 1), full: true,
	}
	have, err := apply.Read(s.targets)
	if err != nil {
		return nil, err
	}
	sizes := k.set.Sizes()
	s.planner = plan.New(plan.Capacities{
		Frontends: sizes.Frontends, ServicePorts: sizes.ServicePorts, Backends: sizes.Backends, Slots: sizes.Slots,
	}, have)
	return s, nil
}

// run syncs when something changed, at once if it is idle, gathered if not.
func (s *syncer) run(ctx context.Context) error {
	for {
		var again <-chan time.Time
		if s.retry > 0 {
			again = time.After(s.retry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.store.Changed():
			s.step()
		case <-again:
			s.step()
		case <-s.devices:
			s.attach()
		}
		if !pause(ctx, s.cfg.MinSyncInterval) {
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
func (s *syncer) step() {
	if !s.store.Synced() {
		return
	}
	s.health.Pending(time.Now())
	failed := s.sync(s.take())
	if failed == nil {
		s.retry = 0
		s.health.Synced()
		return
	}
	s.retry = min(max(retryFirst, 2*s.retry), retryMost)
	s.log.Error("sync", "error", failed, "retry", s.retry)
}

// take returns what the next plan is about. A full plan deletes what it is not
// told of: it is told everything, also when an event comes before the retry.
func (s *syncer) take() service.Changes {
	if s.full {
		s.store.MarkAllDirty()
	}
	return s.store.Take()
}

func (s *syncer) sync(ch service.Changes) error {
	if ch.NodeChanged || s.full {
		if s.adopt(ch.Node) && !s.full {
			s.full = true
			ch = s.take() // with all that was taken before, or newer
			s.adopt(ch.Node)
		}
		if err := s.setRuntime(); err != nil {
			return s.again(err)
		}
		s.attach()
	}
	return s.syncServices(ch.Services)
}

func (s *syncer) syncServices(services []service.View) error {
	if s.reseed {
		have, err := apply.Read(s.targets)
		if err != nil {
			return s.again(err)
		}
		s.planner, s.reseed = s.planner.Reseed(have), false
	}
	p, conflicts := s.planner.Plan(time.Now(), plan.Input{
		Services: services, NodeName: s.cfg.NodeName, NodePortAddrs: s.nodePortAddrs(),
		Live: s.live.of, Full: s.full,
	})
	result := apply.Apply(p, s.targets)
	s.log.Info("synced", "services", len(services), "full", s.full, "writes", result.Writes)
	s.full = false
	if len(result.Failed) > 0 {
		s.reseed = true
		return s.again(joined(result.Failed))
	}
	return s.report(conflicts)
}

// again makes the next sync be about everything.
func (s *syncer) again(err error) error {
	s.full = true
	return err
}

// report logs what could not be planned. A conflict between services does not
// go away by trying again; lack of room may.
func (s *syncer) report(failures map[service.Name]error) error {
	room := make(map[service.Name]error)
	for name, err := range failures {
		if isConflict(err) {
			s.log.Warn("service not completely served", "service", name.String(), "error", err)
			continue
		}
		room[name] = err
	}
	if len(room) == 0 {
		return nil
	}
	return s.again(joined(room))
}

// adopt takes over what the node's object says and reports whether its addresses
// changed: then the next plan has to be about everything, node ports are on them.
func (s *syncer) adopt(n service.Node) bool {
	if len(s.cfg.NodeAddrs) > 0 {
		n.Addrs = s.cfg.NodeAddrs
	}
	changed := !slices.Equal(s.node.Addrs, n.Addrs)
	s.node = n
	return changed
}

// setRuntime writes the addresses flows to other nodes are sent from.
func (s *syncer) setRuntime() error {
	var want maps.Runtime
	for _, a := range s.node.Addrs {
		switch {
		case a.Is4() && !want.SNAT4.IsValid():
			want.SNAT4 = a
		case a.Is6() && !want.SNAT6.IsValid():
			want.SNAT6 = a
		}
	}
	have, err := s.set.Runtime().Get()
	if err != nil || have == want {
		return err
	}
	return s.set.Runtime().Put(want)
}

// nodePortAddrs are the node's addresses that accept node ports.
func (s *syncer) nodePortAddrs() []netip.Addr {
	if len(s.cfg.NodePortCIDRs) == 0 {
		return s.node.Addrs
	}
	var out []netip.Addr
	for _, a := range s.node.Addrs {
		if slices.ContainsFunc(s.cfg.NodePortCIDRs, func(p netip.Prefix) bool { return p.Contains(a) }) {
			out = append(out, a)
		}
	}
	return out
}

// attach brings programs onto the uplinks there are now.
func (s *syncer) attach() {
	err := s.attachUplinks()
	if err != nil {
		s.log.Error("attach", "error", err)
	}
	s.health.Attached(err)
}

func (s *syncer) attachUplinks() error {
	uplinks, err := loader.Uplinks(s.cfg.Uplinks, s.node.Addrs)
	if err != nil {
		return err
	}
	if err := s.attacher.Sync(uplinks); err != nil {
		return err
	}
	if err := loader.SyncDevices(s.set.Devices(), s.attacher.Status()); err != nil {
		return err
	}
	return s.attacher.Verify()
}

func joined(failed map[service.Name]error) error {
	names := slices.SortedFunc(stdmaps.Keys(failed), service.Name.Compare)
	return fmt.Errorf("%d services not synced, first %s: %w", len(names), names[0], failed[names[0]])
}

// liveCounts are the live flows of each backend as of the last collection.
type liveCounts struct {
	mu     sync.Mutex
	counts map[maps.BackendID]int // nil: none yet
}

// of returns the live flows of an index whatever the generation, negative if
// they were not counted yet.
func (l *liveCounts) of(id maps.BackendID) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts == nil {
		return -1
	}
	return l.counts[id]
}

func (l *liveCounts) set(counts map[maps.BackendID]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts = counts
}
