// Package rig runs the real programs on single frames (BPF_PROG_TEST_RUN) with
// maps and a network namespace of their own. It knows how to fill maps and
// what a hook answered; what an answer should have been is the tests' business.
package rig

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
)

// Action is what a hook did with a frame.
type Action uint8

// The actions, the same for XDP and TC.
const (
	Pass Action = iota // up the stack, or to the next program
	Drop
	Sent // XDP_TX or a redirect
)

// String returns the action in lower case.
func (a Action) String() string {
	return [...]string{"pass", "drop", "sent"}[a]
}

// Result is what one run of a program came to.
type Result struct {
	Action  Action
	Verdict maps.Verdict
	Frame   []byte // after the run
}

// Config is what a test may want to be different. The zero value is useful.
type Config struct {
	Sizes            maps.Sizes // zero fields: small defaults
	SNATMin, SNATMax uint16     // 0: 1024-29999
	UnknownFlow      loader.UnknownFlow
	RejectRate       uint32 // 0: more than a test can use up
	RejectTCPReset   bool
	ResetGone        bool
	VIPEcho          bool
}

// Rig is a Set of unpinned maps, the programs working on it, and a World.
type Rig struct {
	Set      *maps.Set
	Programs *loader.Programs
	World    *World
	Clock    *loader.Clock // what flows are stamped with

	collector *loader.Collector
	routes    []*ebpf.Map
	answers   []*ebpf.Map
	dead      []*ebpf.Map
	next      ids
	tunnel    uint32                                // ifindex; 0: there is none
	most      maps.BackendID                        // one more than any that was given away
	lanes     []lane                                // nil: not asked for yet
	counts    map[maps.Hook]map[maps.Verdict]uint64 // as of the last run; nil: to be read
}

// ids are those AddService gives away next.
type ids struct {
	service maps.ServicePortID
	backend maps.BackendID
	slot    uint32
}

// New loads everything; tb's end closes it.
func New(tb testing.TB, cfg Config) *Rig {
	tb.Helper()
	r, err := Open(cfg)
	if err != nil {
		tb.Fatalf("%+v", err)
	}
	tb.Cleanup(func() { _ = r.Close() })
	return r
}

// Open is New for a Rig that serves several tests, one after the other. The
// caller closes it.
func Open(cfg Config) (_ *Rig, err error) {
	r := new(Rig)
	defer func() {
		if err != nil {
			_ = r.Close()
		}
	}()
	if r.Set, err = maps.Create(cfg.sizes()); err != nil {
		return nil, err
	}
	if r.Programs, err = loader.Load(cfg.loader(), r.Set); err != nil {
		return nil, err
	}
	if r.Clock, err = loader.NewClock(); err != nil {
		return nil, err
	}
	if r.collector, err = loader.NewCollector(r.Set); err != nil {
		return nil, err
	}
	if r.routes, err = routeCaches(r.Programs.XDP, r.Programs.TCIngress); err != nil {
		return nil, err
	}
	if r.answers, err = ownMaps(answerDue, r.Programs.XDP, r.Programs.TCIngress, r.Programs.PodIngress); err != nil {
		return nil, err
	}
	if r.dead, err = ownMaps(unresolved, r.Programs.TCIngress); err != nil {
		return nil, err
	}
	if r.World, err = newWorld(); err != nil {
		return nil, err
	}
	return r, errors.Join(r.Set.Runtime().Put(nodeAddresses()), r.watchRoutes(), r.putStations(), r.putDevices())
}

// Close releases what was opened.
func (r *Rig) Close() error {
	var errs []error
	closeLanes(r.lanes)
	if r.World != nil {
		r.World.close()
	}
	if r.Clock != nil {
		errs = append(errs, r.Clock.Close())
	}
	if r.collector != nil {
		errs = append(errs, r.collector.Close())
	}
	for _, m := range slices.Concat(r.routes, r.answers, r.dead) {
		errs = append(errs, m.Close())
	}
	if r.Programs != nil {
		errs = append(errs, r.Programs.Close())
	}
	if r.Set != nil {
		errs = append(errs, r.Set.Close())
	}
	return errors.Join(errs...)
}

func nodeAddresses() maps.Runtime {
	r := maps.Runtime{SNAT4: Node4, SNAT6: Node6}
	for _, a := range ownAddresses {
		r.NodeBits |= maps.AddressBit(a)
	}
	return r
}

// ownAddresses are those of the World.
var ownAddresses = []netip.Addr{Node4, Node6, Second4, Second6}

// putDevices tells of the devices that lead to other machines, and of the node's addresses.
func (r *Rig) putDevices() error {
	var errs []error
	for _, a := range ownAddresses {
		errs = append(errs, r.Set.Addresses(maps.NodeAddress).Put(a, maps.AddressNode))
	}
	if r.tunnel != 0 {
		errs = append(errs, r.Set.Devices().Put(r.tunnel, maps.Device{Away: true}))
	}
	return errors.Join(append(errs,
		r.Set.Devices().Put(r.World.Uplink, UplinkDevice()),
		r.Set.Devices().Put(r.World.Second, SecondDevice()))...)
}

// UplinkDevice is what the programs know of the uplink.
func UplinkDevice() maps.Device { return maps.Device{Away: true, SNAT4: Node4, SNAT6: Node6} }

// SecondDevice is what they know of the second device.
func SecondDevice() maps.Device { return maps.Device{Away: true, SNAT4: Second4, SNAT6: Second6} }

// putStations makes frames to NodeMAC the node's, on both devices, without a tag and with
// that of the rig's VLAN.
func (r *Rig) putStations() error {
	var errs []error
	for _, ifindex := range []uint32{r.World.Uplink, r.World.Second} {
		for _, vlan := range []uint16{0, VLAN} {
			s := maps.Station{Ifindex: ifindex, VLAN: vlan, MAC: maps.MAC(NodeMAC)}
			errs = append(errs, r.Set.Stations().Put(s, ifindex))
		}
	}
	return errors.Join(errs...)
}

// longTicks is more ticks than a test takes.
const longTicks = 1 << 16

// watchRoutes makes programs believe in an agent that tells of changes of routes.
func (r *Rig) watchRoutes() error {
	now, err := r.Clock.Now()
	if err != nil {
		return err
	}
	return r.Set.Routes().Put(maps.RouteState{Changed: now - maps.RouteTicks, Until: now + longTicks})
}

func (c Config) sizes() maps.Sizes {
	s := maps.Sizes{Frontends: 1024, ServicePorts: 1024, Backends: 1024, Slots: 1 << 16, Flows: 1 << 14, HalfOpen: 1 << 12, Closed: 1 << 12, Affinity: 1 << 10, SourceRanges: 1 << 10}
	if c.Sizes.Flows != 0 {
		s.Flows = c.Sizes.Flows
	}
	if c.Sizes.Backends != 0 {
		s.Backends = c.Sizes.Backends
	}
	if c.Sizes.HalfOpen != 0 {
		s.HalfOpen = c.Sizes.HalfOpen
	}
	if c.Sizes.Closed != 0 {
		s.Closed = c.Sizes.Closed
	}
	return s
}

func (c Config) loader() loader.Config {
	out := loader.Config{
		XDP: loader.XDPNative, PodLinks: true, SNATMin: 1024, SNATMax: 29999, UnknownFlow: c.UnknownFlow,
		RejectRate: cmp.Or(c.RejectRate, loader.MaxRejectRate), RejectTCPReset: c.RejectTCPReset,
		ResetGone: c.ResetGone, VIPEcho: c.VIPEcho,
	}
	if c.SNATMin != 0 {
		out.SNATMin, out.SNATMax = c.SNATMin, c.SNATMax
	}
	return out
}

// Reset makes the maps as good as new, so that one Rig serves a table of
// cases, or several tests. Counters and the counts of backends go on.
func (r *Rig) Reset(tb testing.TB) {
	tb.Helper()
	frontends, err := r.Set.Frontends().All()
	r.must(tb, err)
	for f := range frontends {
		r.must(tb, r.Set.Frontends().Delete(f))
	}
	names, err := r.Set.ServicePorts().All()
	r.must(tb, err)
	for id := range names {
		r.must(tb, r.Set.ServicePorts().Delete(id))
	}
	devices, err := r.Set.Devices().All()
	r.must(tb, err)
	for d := range devices {
		r.must(tb, r.Set.Devices().Delete(d))
	}
	stations, err := r.Set.Stations().All()
	r.must(tb, err)
	for s := range stations {
		r.must(tb, r.Set.Stations().Delete(s))
	}
	r.ResetFlows(tb)
	r.resetClients(tb)
	empty[bpf.LayoutIpAddr, uint32](tb, r, r.Set.Replacements()[bpf.LayoutMapAddresses])
	empty[bpf.LayoutNeighbourKey, bpf.LayoutNeighbour](tb, r, r.Set.Replacements()[bpf.LayoutMapNeighbours])
	r.must(tb, errors.Join(r.Set.Runtime().Put(nodeAddresses()), r.watchRoutes(), r.putStations(), r.putDevices()))
	r.must(tb, r.forgetRoutes(0, r.most))
	r.must(tb, r.forgetAnswers())
	for _, m := range r.dead {
		empty[bpf.LayoutNeighbourKey, [3]uint32](tb, r, m)
	}
	r.next = ids{}
}

// resetClients forgets what is known of clients.
func (r *Rig) resetClients(tb testing.TB) {
	tb.Helper()
	ranges, err := r.Set.SourceRanges().All()
	r.must(tb, err)
	for s := range ranges {
		r.must(tb, r.Set.SourceRanges().Delete(s))
	}
	for _, m := range []maps.CIDRs{r.Set.ServiceCIDRs(), r.Set.Secured()} {
		all, err := m.All()
		r.must(tb, err)
		for p := range all {
			r.must(tb, m.Delete(p))
		}
	}
	addrs, err := r.Set.Addresses(maps.ServiceAddress | maps.NodeAddress).All()
	r.must(tb, err)
	for a := range addrs {
		r.must(tb, r.Set.Addresses(maps.ServiceAddress|maps.NodeAddress).Delete(a))
	}
	r.must(tb, r.Set.Affinity().Each(func(k maps.AffinityKey, _ maps.Affinity) bool {
		r.must(tb, r.Set.Affinity().Delete(k))
		return true
	}))
}

// ResetFlows empties the maps that hold flows, and forgets what is remembered of
// fragments and of full maps. Hints stay: they are wrong at times in a node, too.
func (r *Rig) ResetFlows(tb testing.TB) {
	tb.Helper()
	empty[bpf.LayoutFragmentKey, bpf.LayoutFragmentPorts](tb, r, r.Set.Replacements()[bpf.LayoutMapFragments])
	r.must(tb, r.Set.Replacements()[bpf.LayoutMapPressure].Put(uint32(0), bpf.LayoutFlowsPressure{}))
	for _, m := range []maps.Flows{r.Set.Flows(), r.Set.HalfOpen(), r.Set.Closed()} {
		r.must(tb, m.Each(func(k maps.FlowKey, _ maps.Flow) bool {
			r.must(tb, m.Delete(k))
			return true
		}))
	}
}

// Program returns the program of a hook.
func (r *Rig) Program(h maps.Hook) *ebpf.Program {
	return map[maps.Hook]*ebpf.Program{
		maps.HookXDP: r.Programs.XDP, maps.HookTCIngress: r.Programs.TCIngress, maps.HookTCEgress: r.Programs.TCEgress,
		maps.HookPodIngress: r.Programs.PodIngress, maps.HookPodEgress: r.Programs.PodEgress,
	}[h]
}

// Run puts frame through the program of hook, as if it came by the uplink.
func (r *Rig) Run(tb testing.TB, hook maps.Hook, frame []byte) Result {
	tb.Helper()
	return r.RunWith(tb, hook, frame, Context{})
}

// RunWith is Run with more of the context given.
func (r *Rig) RunWith(tb testing.TB, hook maps.Hook, frame []byte, ctx Context) Result {
	tb.Helper()
	before := r.counts
	if before == nil {
		before = r.counters(tb)
	}
	r.counts = nil // until the run is over: a test may end before
	opts := r.options(hook, frame, ctx)
	opts.DataOut = make([]byte, len(opts.Data)+256)
	var code uint32
	err := r.World.Do(func() (err error) {
		code, err = r.Program(hook).Run(opts)
		return err
	})
	if err != nil {
		tb.Fatalf("run %s: %v", hook, err)
	}
	action, err := actionOf(hook, int32(code))
	if err != nil {
		tb.Fatal(err)
	}
	r.counts = r.counters(tb)
	return Result{Action: action, Verdict: one(tb, hook, before[hook], r.counts[hook]), Frame: opts.DataOut}
}

// Flood puts frames through the program of hook, one after the other, as if they
// came by the uplink, and returns how often it counted each verdict.
func (r *Rig) Flood(tb testing.TB, hook maps.Hook, frames [][]byte) map[maps.Verdict]uint64 {
	tb.Helper()
	before := r.counters(tb)[hook]
	r.counts = nil
	program := r.Program(hook)
	err := r.World.Do(func() error { // once: to change threads takes longer than a run
		for _, frame := range frames {
			if _, err := program.Run(r.options(hook, frame, Context{})); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatalf("run %s: %v", hook, err)
	}
	return counted(before, r.counters(tb)[hook])
}

// pad gives frame the least length the kernel runs a program on.
func pad(frame []byte) []byte {
	if len(frame) >= 14 {
		return frame
	}
	return append(frame[:len(frame):len(frame)], make([]byte, 14-len(frame))...)
}

func actionOf(hook maps.Hook, code int32) (Action, error) {
	if hook == maps.HookXDP {
		switch code {
		case 1:
			return Drop, nil
		case 2:
			return Pass, nil
		case 3, 4:
			return Sent, nil
		}
	} else {
		switch code {
		case -1:
			return Pass, nil
		case 2:
			return Drop, nil
		case 7:
			return Sent, nil
		}
	}
	return 0, fmt.Errorf("%s returned %d", hook, code)
}

func (r *Rig) counters(tb testing.TB) map[maps.Hook]map[maps.Verdict]uint64 {
	tb.Helper()
	all, err := r.Set.Counters().All()
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

// one returns the verdict counted between two looks; each run counts one.
func one(tb testing.TB, hook maps.Hook, before, after map[maps.Verdict]uint64) maps.Verdict {
	tb.Helper()
	found := counted(before, after)
	for v, n := range found {
		if len(found) == 1 && n == 1 {
			return v
		}
	}
	tb.Fatalf("one run of %s counted the verdicts %v, want one", hook, found)
	return maps.VerdictNone
}

// counted returns how often each verdict was counted between two looks, without
// those that were not.
func counted(before, after map[maps.Verdict]uint64) map[maps.Verdict]uint64 {
	found := make(map[maps.Verdict]uint64)
	for v, n := range after {
		if n -= before[v]; n > 0 {
			found[v] = n
		}
	}
	return found
}
