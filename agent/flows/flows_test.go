package flows

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/maps/mapstest"
)

// clock is a Clock that tests set.
type clock struct {
	now  uint32
	tick time.Duration
	err  error
}

func (c *clock) Now() (uint32, error) { return c.now, c.err }
func (c *clock) Tick() time.Duration  { return c.tick }

// fixture is a Collector on maps in memory at tick 1000000 of a second each.
type fixture struct {
	t     *testing.T
	fake  *mapstest.Fake
	clock *clock
	Collector
}

func newFixture(t *testing.T, entries uint32) *fixture {
	fake := mapstest.New(maps.Sizes{Frontends: 1, ServicePorts: 1, Backends: 1, Slots: 1, Flows: entries, HalfOpen: entries})
	c := &clock{now: 1_000_000, tick: time.Second}
	return &fixture{t: t, fake: fake, clock: c, Collector: Collector{
		Flows: fake.Flows(), HalfOpen: fake.HalfOpen(), Clock: c, Timeouts: DefaultTimeouts(),
	}}
}

func (f *fixture) collect() Report {
	f.t.Helper()
	r, err := f.Collect(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// seen returns the tick of the given time ago.
func (f *fixture) seen(ago time.Duration) uint32 { return f.clock.now - uint32(ago/f.clock.tick) }

func (f *fixture) put(table mapstest.Flows, k maps.FlowKey, v maps.Flow) {
	f.t.Helper()
	if err := table.Put(k, v); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) has(table Table, k maps.FlowKey) bool {
	f.t.Helper()
	_, ok, err := table.Lookup(k)
	if err != nil {
		f.t.Fatal(err)
	}
	return ok
}

func (f *fixture) wantLive(r Report, want map[Owner]int) {
	f.t.Helper()
	got := map[Owner]int{}
	for owner, n := range r.Live {
		if n != 0 {
			got[owner] = n
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		f.t.Errorf("live (-want +got):\n%s", diff)
	}
}

// pair is a flow: both keys and both entries.
type pair struct {
	fwdKey, revKey maps.FlowKey
	fwd, rev       maps.Flow
}

// newPair returns flow number n of a backend, both halves seen at the same tick.
func newPair(proto maps.Proto, n uint16, owner Owner, seen uint32) pair {
	client := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), n)
	vip := netip.MustParseAddrPort("203.0.113.1:80")
	pod := netip.MustParseAddrPort("10.0.0.1:8080")
	v := maps.Flow{Backend: owner.ID, Generation: owner.Generation, Seen: seen}
	p := pair{
		fwdKey: maps.FlowKey{Src: client, Dst: vip, Proto: proto},
		revKey: maps.FlowKey{Src: pod, Dst: client, Proto: proto},
		fwd:    v, rev: v,
	}
	p.fwd.Src, p.fwd.Dst = client, pod
	p.rev.Src, p.rev.Dst, p.rev.Flags = vip, client, maps.FlowReverse
	return p
}

func (f *fixture) putPair(p pair) {
	f.t.Helper()
	f.put(f.fake.Flows(), p.fwdKey, p.fwd)
	f.put(f.fake.Flows(), p.revKey, p.rev)
}

var owner = Owner{ID: 7, Generation: 3}

func TestEachClassOfFlowHasItsTimeout(t *testing.T) {
	d := DefaultTimeouts()
	for _, tc := range []struct {
		name     string
		proto    maps.Proto
		fwd, rev maps.FlowFlags
		timeout  time.Duration
		live     bool
	}{
		{"established TCP", maps.TCP, 0, 0, d.Established, true},
		{"TCP after the client's FIN", maps.TCP, maps.FlowFIN, maps.FlowPeerFIN, d.HalfClosed, true},
		{"TCP after the backend's FIN", maps.TCP, maps.FlowPeerFIN, maps.FlowFIN, d.HalfClosed, true},
		{"TCP after both FINs", maps.TCP, maps.FlowFIN | maps.FlowPeerFIN, maps.FlowFIN | maps.FlowPeerFIN, d.Closed, false},
		{"TCP after the client's RST", maps.TCP, maps.FlowRST, maps.FlowPeerRST, d.Closed, false},
		{"TCP after the backend's RST", maps.TCP, maps.FlowPeerRST, maps.FlowRST, d.Closed, false},
		{"unanswered UDP", maps.UDP, 0, 0, d.Unreplied, true},
		{"established SCTP", maps.SCTP, 0, 0, d.Associated, true},
		{"SCTP after an ABORT or the last of a shutdown", maps.SCTP, maps.FlowRST, maps.FlowPeerRST, d.Closed, false},
		{"answered UDP", maps.UDP, 0, maps.FlowReplied, d.Replied, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, 16)
			atLimit, over := newPair(tc.proto, 1, owner, f.seen(tc.timeout)), newPair(tc.proto, 2, owner, f.seen(tc.timeout+time.Second))
			for _, p := range []pair{atLimit, over} {
				p.fwd.Flags |= tc.fwd
				p.rev.Flags |= tc.rev
				f.putPair(p)
			}
			r := f.collect()
			if !f.has(f.Flows, atLimit.fwdKey) || !f.has(f.Flows, atLimit.revKey) {
				t.Errorf("a flow idle for its timeout of %v is removed", tc.timeout)
			}
			if f.has(f.Flows, over.fwdKey) || f.has(f.Flows, over.revKey) {
				t.Errorf("a flow idle for longer than %v stays", tc.timeout)
			}
			if r.Deleted != 2 || r.Entries != 2 {
				t.Errorf("%d deleted, %d left, want 2 and 2", r.Deleted, r.Entries)
			}
			want := map[Owner]int{}
			if tc.live {
				want[owner] = 1
			}
			f.wantLive(r, want)
		})
	}
}

func TestHalfOpenFlowsHaveATimeoutOfTheirOwn(t *testing.T) {
	for proto, timeout := range map[maps.Proto]time.Duration{
		maps.TCP: DefaultTimeouts().HalfOpen, maps.SCTP: DefaultTimeouts().Associating,
	} {
		t.Run(proto.String(), func(t *testing.T) { halfOpenLasts(t, proto, timeout) })
	}
}

func halfOpenLasts(t *testing.T, proto maps.Proto, timeout time.Duration) {
	t.Helper()
	f := newFixture(t, 16)
	atLimit, over := newPair(proto, 1, owner, f.seen(timeout)), newPair(proto, 2, owner, f.seen(timeout+time.Second))
	for _, p := range []pair{atLimit, over} {
		f.put(f.fake.HalfOpen(), p.revKey, p.rev) // after the SYN there is but one half
	}
	f.put(f.fake.HalfOpen(), over.fwdKey, over.fwd)
	r := f.collect()
	if !f.has(f.HalfOpen, atLimit.revKey) || f.has(f.HalfOpen, over.fwdKey) || f.has(f.HalfOpen, over.revKey) {
		t.Error("want the one idle for its timeout kept, both halves of the other removed")
	}
	if r.Deleted != 2 || r.HalfOpen != 1 || r.Entries != 0 {
		t.Errorf("report %+v, want 2 deleted, 1 half-open left", r)
	}
	f.wantLive(r, map[Owner]int{}) // a handshake is no connection
}

func TestAFlowStaysWhileOneHalfIsInUse(t *testing.T) {
	d := DefaultTimeouts()
	for _, tc := range []struct {
		name  string
		proto maps.Proto
		edit  func(f *fixture, p *pair)
	}{
		{"only the client sends", maps.TCP, func(f *fixture, p *pair) { p.fwd.Seen = f.seen(time.Second) }},
		{"only the backend sends", maps.TCP, func(f *fixture, p *pair) { p.rev.Seen = f.seen(time.Second) }},
		{"an answered datagram is idle for less than answered ones may be", maps.UDP, func(f *fixture, p *pair) {
			p.rev.Flags |= maps.FlowReplied
			p.fwd.Seen, p.rev.Seen = f.seen(d.Unreplied+time.Second), f.seen(d.Unreplied+time.Second)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, 16)
			p := newPair(tc.proto, 1, owner, f.seen(2*d.Established))
			tc.edit(f, &p)
			f.putPair(p)
			r := f.collect()
			if !f.has(f.Flows, p.fwdKey) || !f.has(f.Flows, p.revKey) || r.Deleted != 0 || r.Entries != 2 {
				t.Errorf("report %+v: want both halves kept", r)
			}
			f.wantLive(r, map[Owner]int{owner: 1})
		})
	}
}

func TestAnIdleHalfWithoutACounterpartIsRemovedAlone(t *testing.T) {
	f := newFixture(t, 16)
	idle := f.seen(2 * DefaultTimeouts().Established)
	alone := newPair(maps.TCP, 1, owner, idle)
	f.put(f.fake.Flows(), alone.revKey, alone.rev)

	// The tuple of the other half belongs to a new flow by now, idle or not.
	old := newPair(maps.TCP, 2, owner, idle)
	f.put(f.fake.Flows(), old.fwdKey, old.fwd)
	successor := old.rev
	successor.Src = netip.MustParseAddrPort("203.0.113.9:80")
	successor.Seen = f.seen(time.Second)
	f.put(f.fake.Flows(), old.revKey, successor)

	r := f.collect()
	if f.has(f.Flows, alone.revKey) || f.has(f.Flows, old.fwdKey) {
		t.Error("an idle half stays")
	}
	if !f.has(f.Flows, old.revKey) || r.Deleted != 2 || r.Entries != 1 {
		t.Errorf("report %+v: the half of another flow must stay, alone", r)
	}
	f.wantLive(r, map[Owner]int{})
}

func TestLiveFlowsAreCountedByBackendAndGeneration(t *testing.T) {
	f := newFixture(t, 32)
	before, after, other := Owner{7, 3}, Owner{7, 4}, Owner{8, 3}
	n := uint16(0)
	for owner, flows := range map[Owner]int{before: 2, after: 3, other: 1} {
		for range flows {
			n++
			f.putPair(newPair(maps.TCP, n, owner, f.seen(time.Second)))
		}
	}
	f.putPair(newPair(maps.UDP, 99, other, f.seen(time.Second)))
	f.wantLive(f.collect(), map[Owner]int{before: 2, after: 3, other: 2})
}

func TestTicksMayWrapAroundAndBeOfAnyLength(t *testing.T) {
	f := newFixture(t, 16)
	f.clock.now, f.clock.tick = 5, 1024*time.Millisecond
	short := DefaultTimeouts().Unreplied
	young, old := newPair(maps.UDP, 1, owner, 0), newPair(maps.UDP, 2, owner, 0)
	ticks := uint32(short / f.clock.tick)
	young.fwd.Seen, young.rev.Seen = f.clock.now-ticks, f.clock.now-ticks
	old.fwd.Seen, old.rev.Seen = f.clock.now-ticks-1, f.clock.now-ticks-1
	future := newPair(maps.UDP, 3, owner, f.clock.now+1) // a packet since the clock was read
	for _, p := range []pair{young, old, future} {
		f.putPair(p)
	}
	f.collect()
	if !f.has(f.Flows, young.fwdKey) || !f.has(f.Flows, future.fwdKey) || f.has(f.Flows, old.fwdKey) {
		t.Error("want the old flow removed and the others kept")
	}
}

// changing is a Table in which something happens between the look at all
// flows and the removal of those that were idle.
type changing struct {
	mapstest.Flows
	meanwhile func()
}

func (c *changing) Each(fn func(maps.FlowKey, maps.Flow) bool) error {
	err := c.Flows.Each(fn)
	c.meanwhile()
	return err
}

func TestAFlowUsedAfterItWasSeenIdleStays(t *testing.T) {
	for _, half := range []string{"client", "backend"} {
		t.Run("a packet of the "+half, func(t *testing.T) {
			f := newFixture(t, 16)
			p := newPair(maps.TCP, 1, owner, f.seen(2*DefaultTimeouts().Established))
			f.putPair(p)
			f.Flows = &changing{f.fake.Flows(), func() {
				if half == "client" {
					p.fwd.Seen = f.clock.now
				} else {
					p.rev.Seen = f.clock.now
				}
				f.putPair(p)
			}}
			if r := f.collect(); r.Deleted != 0 || !f.has(f.Flows, p.fwdKey) || !f.has(f.Flows, p.revKey) {
				t.Errorf("report %+v: want both halves kept", r)
			}
		})
	}
}

func TestAHandshakeThatGoesOnAfterItWasSeenIdleStays(t *testing.T) {
	f := newFixture(t, 16)
	p := newPair(maps.TCP, 1, owner, f.seen(time.Hour))
	f.put(f.fake.HalfOpen(), p.revKey, p.rev)
	f.HalfOpen = &changing{f.fake.HalfOpen(), func() {
		p.rev.Seen = f.clock.now
		f.put(f.fake.HalfOpen(), p.revKey, p.rev)
	}}
	if r := f.collect(); r.Deleted != 0 || !f.has(f.HalfOpen, p.revKey) {
		t.Errorf("report %+v: want it kept", r)
	}
}

// What one pass cannot remember, the next one removes.
func TestOnePassRemovesABoundedNumberOfFlows(t *testing.T) {
	const more = 10
	f := newFixture(t, maxOver+more)
	idle := f.seen(time.Hour)
	dst := netip.MustParseAddrPort("203.0.113.1:80")
	for i := range uint32(maxOver + more) {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		src := netip.AddrPortFrom(addr, 1000)
		k := maps.FlowKey{Src: src, Dst: dst, Proto: maps.UDP}
		v := maps.Flow{Src: src, Dst: dst, Backend: owner.ID, Generation: owner.Generation, Seen: idle}
		f.put(f.fake.Flows(), k, v)
		f.put(f.fake.HalfOpen(), k, v)
	}
	first := f.collect()
	if first.Deleted != 2*maxOver || first.Entries != more || first.HalfOpen != more {
		t.Errorf("first pass: %d deleted, %d and %d left; want %d, %d, %d",
			first.Deleted, first.Entries, first.HalfOpen, 2*maxOver, more, more)
	}
	f.wantLive(first, map[Owner]int{owner: more})
	second := f.collect()
	if second.Deleted != 2*more || second.Entries != 0 || second.HalfOpen != 0 {
		t.Errorf("second pass: %+v, want the other %d removed", second, 2*more)
	}
}

func TestWhatCannotBeDoneIsAnError(t *testing.T) {
	refused := errors.New("refused on demand")
	idlePair := func(f *fixture) pair { return newPair(maps.TCP, 1, owner, f.seen(48*time.Hour)) }
	for _, tc := range []struct {
		name    string
		prepare func(f *fixture)
		want    error
	}{
		{"the clock", func(f *fixture) { f.clock.err = refused }, refused},
		{"a delete of a flow", func(f *fixture) { f.putPair(idlePair(f)); f.fake.FailNext(1, refused) }, refused},
		{"a delete of the other half", func(f *fixture) { f.putPair(idlePair(f)); f.fake.FailAfter(1, refused) }, refused},
		{"a delete of a half-open flow", func(f *fixture) {
			p := idlePair(f)
			f.put(f.fake.HalfOpen(), p.revKey, p.rev)
			f.fake.FailNext(1, refused)
		}, refused},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, 16)
			tc.prepare(f)
			if _, err := f.Collect(t.Context()); !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v in it", err, tc.want)
			}
		})
	}
}

func TestAnEndedContextEndsTheCollection(t *testing.T) {
	f := newFixture(t, 64)
	for n := range uint16(20) {
		f.putPair(newPair(maps.TCP, n+1, owner, f.seen(time.Second)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := f.Collect(ctx)
	if !errors.Is(err, context.Canceled) || r.Entries > 1 {
		t.Errorf("%d entries looked at, error %v; want one at most, and %v", r.Entries, err, context.Canceled)
	}
}

func TestWhatABackendThatIsGoneNeverAnsweredGoesAtOnce(t *testing.T) {
	left := Owner{ID: 8, Generation: 1}
	type want struct{ fwd, rev bool }
	for _, tc := range []struct {
		name     string
		proto    maps.Proto
		halfOpen bool
		owner    Owner
		replied  bool // its client has a half, or the flag says so
		want     want
	}{
		{"a handshake nobody answered", maps.TCP, true, left, false, want{}},
		{"a handshake that was answered", maps.TCP, true, left, true, want{true, true}},
		{"a handshake with a backend that is there", maps.TCP, true, owner, false, want{false, true}},
		{"a datagram nobody answered", maps.UDP, false, left, false, want{}},
		{"a datagram that was answered", maps.UDP, false, left, true, want{true, true}},
		{"a datagram to a backend that is there", maps.UDP, false, owner, false, want{true, true}},
		{"a connection", maps.TCP, false, left, true, want{true, true}},
		{"another generation of the index", maps.TCP, true, Owner{ID: left.ID, Generation: 2}, false, want{false, true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, 16)
			f.Gone = func(o Owner) bool { return o == left }
			p := newPair(tc.proto, 1, tc.owner, f.seen(0))
			table := f.fake.Flows()
			if tc.halfOpen {
				table = f.fake.HalfOpen()
			}
			if tc.replied && tc.proto == maps.UDP {
				p.rev.Flags |= maps.FlowReplied
			}
			f.put(table, p.revKey, p.rev)
			if !tc.halfOpen || tc.replied {
				f.put(table, p.fwdKey, p.fwd)
			}
			f.collect()
			if got := (want{f.has(table, p.fwdKey), f.has(table, p.revKey)}); got != tc.want {
				t.Errorf("left is %+v, want %+v", got, tc.want)
			}
		})
	}
}

// Between a look and the deletion a client may have begun anew, with another backend.
func TestAHandshakeThatFoundAnotherBackendStays(t *testing.T) {
	f := newFixture(t, 16)
	left := Owner{ID: 8, Generation: 1}
	f.Gone = func(o Owner) bool { return o == left }
	p := newPair(maps.TCP, 1, left, f.seen(0))
	f.put(f.fake.HalfOpen(), p.revKey, p.rev)
	f.HalfOpen = &changing{f.fake.HalfOpen(), func() {
		p.rev.Backend, p.rev.Generation = owner.ID, owner.Generation
		f.put(f.fake.HalfOpen(), p.revKey, p.rev)
	}}
	if r := f.collect(); r.Deleted != 0 || !f.has(f.HalfOpen, p.revKey) {
		t.Errorf("report %+v: want it kept", r)
	}
}
