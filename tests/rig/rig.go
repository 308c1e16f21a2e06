// Package rig runs the real programs on single frames (BPF_PROG_TEST_RUN) with
// maps and a network namespace of their own. It knows how to fill maps and
// what a hook answered; what an answer should have been is the tests' business.
package rig

import (
	"cmp"
	"errors"
	"fmt"
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
	PassUnknownFlows bool
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

	routes  []*ebpf.Map
	answers []*ebpf.Map
	next    ids
	counts  map[maps.Hook]map[maps.Verdict]uint64 // as of the last run; nil: to be read
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
	if r.routes, err = ownMaps(routeCache, r.Programs.XDP, r.Programs.TCIngress); err != nil {
		return nil, err
	}
	if r.answers, err = ownMaps(answerDue, r.Programs.XDP, r.Programs.TCIngress, r.Programs.PodIngress); err != nil {
		return nil, err
	}
	if r.World, err = newWorld(); err != nil {
		return nil, err
	}
	return r, r.Set.Runtime().Put(nodeAddresses())
}

// Close releases what was opened.
func (r *Rig) Close() error {
	var errs []error
	if r.World != nil {
		r.World.close()
	}
	if r.Clock != nil {
		errs = append(errs, r.Clock.Close())
	}
	for _, m := range slices.Concat(r.routes, r.answers) {
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

func nodeAddresses() maps.Runtime { return maps.Runtime{SNAT4: Node4, SNAT6: Node6} }

func (c Config) sizes() maps.Sizes {
	s := maps.Sizes{Frontends: 1024, ServicePorts: 1024, Backends: 1024, Slots: 1 << 16, Flows: 1 << 14, HalfOpen: 1 << 12, Affinity: 1 << 10, SourceRanges: 1 << 10}
	if c.Sizes.Flows != 0 {
		s.Flows = c.Sizes.Flows
	}
	if c.Sizes.HalfOpen != 0 {
		s.HalfOpen = c.Sizes.HalfOpen
	}
	return s
}

func (c Config) loader() loader.Config {
	out := loader.Config{
		XDP: loader.XDPNative, PodLinks: true, SNATMin: 1024, SNATMax: 29999, DropUnknownFlows: !c.PassUnknownFlows,
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
	r.ResetFlows(tb)
	r.resetClients(tb)
	empty[bpf.LayoutIpAddr, uint32](tb, r, r.Set.Replacements()[bpf.LayoutMapAddresses])
	r.must(tb, r.Set.Runtime().Put(nodeAddresses()))
	r.must(tb, r.forgetRoutes(int(r.next.backend)))
	r.must(tb, r.forgetAnswers())
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
	pods, err := r.Set.PodCIDRs().All()
	r.must(tb, err)
	for p := range pods {
		r.must(tb, r.Set.PodCIDRs().Delete(p))
	}
	cidrs, err := r.Set.ServiceCIDRs().All()
	r.must(tb, err)
	for p := range cidrs {
		r.must(tb, r.Set.ServiceCIDRs().Delete(p))
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

// ResetFlows empties the maps that hold flows, and what is remembered of fragments.
func (r *Rig) ResetFlows(tb testing.TB) {
	tb.Helper()
	empty[bpf.LayoutFragmentKey, bpf.LayoutFragmentPorts](tb, r, r.Set.Replacements()[bpf.LayoutMapFragments])
	for _, m := range []maps.Flows{r.Set.Flows(), r.Set.HalfOpen()} {
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
	for _, frame := range frames {
		if err := r.runFlags(hook, frame, 0); err != nil {
			tb.Fatalf("run %s: %v", hook, err)
		}
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
