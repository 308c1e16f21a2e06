package statefuzz

import (
	"fmt"
	"strings"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// failure is a rule that does not hold.
type failure struct {
	rule string
	w    *world
}

// String is the rule, and what led there.
func (f *failure) String() string {
	return fmt.Sprintf("%s\n%s, after:\n%s", f.rule, f.w.shape.name, strings.Join(f.w.log, "\n"))
}

// fail ends the run.
func (w *world) fail(format string, args ...any) {
	w.tb.Helper()
	panic(failure{fmt.Sprintf(format, args...), w})
}

// judge checks where a packet came out.
func (w *world) judge(p *Packet, a *arrival) {
	w.tb.Helper()
	if p.From != nil && p.From.Serves {
		w.judgeAnswer(p, a)
		return
	}
	w.judgeQuestion(p, a)
}

// flowOf is the flow a packet of a client belongs to, nil if none is known.
func (w *world) flowOf(p *Packet) *Flow {
	if p.End != nil && p.End.Flow != nil && (p.End.Flow.Client == p.End || p.End.Flow.Server == p.End) {
		return p.End.Flow
	}
	return nil
}

func (w *world) judgeQuestion(p *Packet, a *arrival) {
	w.tb.Helper()
	w.judgeGuest(p, a)
	f, mine := w.flowOf(p), true
	if f == nil {
		f, mine = w.Living(p.Key()), false
	}
	if f != nil && f.Binds(w.Model, p) && !a.dropped && !w.moved(f) {
		if a.to != nil && (a.to != f.Server.Host || a.spec.Src != f.Reverse.Dst || a.spec.Dst != f.Reverse.Src) {
			w.fail("I1: %s reached %s, but its connection is with %s (%s): %s", describe(p), arrived(a), f.Server.Host.Name, f.Reverse, a)
		}
	}
	if f != nil && mine && f.Promised(w.Model) && (a.dropped || a.to == nil) && !(p.Opens() && f.Begins(w.Model)) {
		w.fail("I1: %s of the living connection with %s (%s) was lost: %s", describe(p), f.Server.Host.Name, f.Reverse, a)
	}
	if p.Opens() && f == nil && !p.Forged {
		w.judgeOpening(p, a)
	}
}

// moved reports whether the client of f is elsewhere than it was.
func (w *world) moved(f *Flow) bool { return f.Client.Host.Ends[f.Client.Key] != f.Client }

// judgeOpening: the first packet of a connection goes to a pod of the table, or
// where an earlier one of its tuple went.
func (w *world) judgeOpening(p *Packet, a *arrival) {
	w.tb.Helper()
	if a.dropped {
		if !w.mayRefuse(a) {
			w.fail("I1: %s was refused: %s", describe(p), a)
		}
		return
	}
	if a.to == nil || !a.to.Serves {
		w.fail("I1: %s reached no backend: %s", describe(p), a)
	}
	if a.to.State != maps.Active && !w.Given[p.Key()][a.to] {
		w.fail("I1: %s reached %s, which is in no table: %s", describe(p), a.to.Name, a)
	}
}

// mayRefuse lists why a new connection may be refused.
func (w *world) mayRefuse(a *arrival) bool {
	switch a.verdict {
	case maps.VerdictSNATExhausted, maps.VerdictMapFull, maps.VerdictNone: // the last: not known
		return w.Narrow
	}
	return false
}

// judgeGuest: whatever it is, it is not heard within the connection of another.
func (w *world) judgeGuest(p *Packet, a *arrival) {
	w.tb.Helper()
	if a.to == nil || a.dropped {
		return
	}
	h := w.Holder(maps.FlowKey{Src: a.spec.Dst, Dst: a.spec.Src, Proto: p.Proto})
	if h != nil && h.Forward != p.Key() {
		w.fail("I5: %s is heard within the connection %s (in flows: %t, last packet at %d): %s", describe(p), h.Forward, h.Held, h.Seen, a)
	}
}

func (w *world) judgeAnswer(p *Packet, a *arrival) {
	w.tb.Helper()
	f := w.flowOf(p)
	if f != nil && f.Promised(w.Model) && !(f.NoReverse && !f.Held) {
		if a.dropped || a.to == nil && !a.raw {
			w.fail("I1: %s, an answer to %s, was lost: %s", describe(p), f.Forward, a)
		}
		if a.raw {
			w.fail("I6: %s, an answer to %s, leaves as it is: %s", describe(p), f.Forward, a)
		}
		if a.to != f.Client.Host || a.spec.Src != f.Forward.Dst || a.spec.Dst != f.Forward.Src {
			w.fail("I1: %s, an answer to %s, reached %s: %s", describe(p), f.Forward, arrived(a), a)
		}
		return
	}
	if a.dropped || a.to == nil || a.raw {
		return
	}
	k := maps.FlowKey{Src: a.spec.Dst, Dst: a.spec.Src, Proto: p.Proto}
	asked := p.End == nil || p.End.Origin != nil && p.End.Flow == nil // not by a forged packet, nor of an older connection
	l := w.Living(k)
	// What else it says a client ignores, and a RST without the number it expects (RFC 5961).
	asked = asked && l != nil && (p.Proto != maps.TCP || p.Flags&packet.SYN != 0 || p.Flags&packet.RST != 0 && p.Seq == l.Client.Want)
	if asked && l.Server.Host != p.From && l.Server.Host.State != maps.Gone && p.Proto != maps.UDP {
		w.fail("I2: %s of %s is heard within the connection %s with %s: %s", describe(p), p.From.Name, k, l.Server.Host.Name, a)
	}
	w.judgeLead(p, a, k)
}

// judgeLead: a client that waits hears of one backend only.
func (w *world) judgeLead(p *Packet, a *arrival, k maps.FlowKey) {
	w.tb.Helper()
	c := a.to.Ends[k]
	if c == nil || p.Proto != maps.TCP || p.Ack != c.First+1 || p.Forged {
		return
	}
	switch {
	case p.Flags&packet.RST != 0:
		if c.Phase == Called && c.Called != nil && c.Called != p.From {
			w.fail("I2: %s: the client has turned to %s since, and hears the refusal of %s: %s", describe(p), c.Called.Name, p.From.Name, a)
		}
	case p.Flags&packet.SYN != 0:
		if c.Phase == Established && c.Peer != nil && c.Peer.Host != p.From && c.Peer.Host.State != maps.Gone && c.Flow.Kept(w.Model) {
			w.fail("I2: %s: the client has heard %s, and now hears %s: %s", describe(p), c.Peer.Host.Name, p.From.Name, a)
		}
	}
}

func arrived(a *arrival) string {
	if a.to == nil {
		return "nobody"
	}
	return fmt.Sprintf("%s as %s > %s", a.to.Name, a.spec.Src, a.spec.Dst)
}

// look compares the map of flows with what the ends know.
func (w *world) look() {
	w.tb.Helper()
	entries := make(map[maps.FlowKey]maps.Flow)
	w.must(w.rig.Set.Flows().Each(func(k maps.FlowKey, f maps.Flow) bool {
		entries[k] = f
		return true
	}))
	w.held = len(entries)
	live := make(map[maps.BackendID]int)
	for k, f := range entries {
		forward, reverse := k, maps.Counterpart(k, f)
		if f.Flags&maps.FlowReverse != 0 {
			forward, reverse = reverse, forward
		} else if !f.Closed() {
			live[f.Backend]++
		}
		if !w.Proved(forward, reverse) {
			w.fail("I3: flows has %s, of the backend %s, which nobody has proved", forward, reverse)
		}
		if peer, ok := entries[maps.Counterpart(k, f)]; !ok || maps.Counterpart(maps.Counterpart(k, f), peer) != k {
			w.fail("I3: flows has %s without its other half", k)
		}
	}
	for _, f := range w.Flows {
		f.Forgotten = f.Forgotten || f.Expired(w.Model)
	}
	w.lookForFlows(entries)
	for id, base := range w.base {
		counts, err := w.rig.Set.Stats().Get(id)
		w.must(err)
		if got := int(counts.Opened) - int(counts.Closed) - base; got != live[id] {
			w.fail("I4: backend %d has %d live connections, flows has %d of %v", id, got, live[id], entries)
		}
	}
}

func (w *world) lookForFlows(entries map[maps.FlowKey]maps.Flow) {
	w.tb.Helper()
	for _, f := range w.Flows {
		forward, ok := entries[f.Forward]
		reverse, both := entries[f.Reverse]
		there := ok && both && maps.Counterpart(f.Forward, forward) == f.Reverse && maps.Counterpart(f.Reverse, reverse) == f.Forward
		if !f.Lives(w.Model) {
			continue
		}
		if f.Held && (!there || forward.Closed()) {
			w.fail("I3: the living connection %s with %s (%s) is not in flows: %t %t %+v", f.Forward, f.Server.Host.Name, f.Reverse, ok, both, forward)
		}
		f.Held = there && !forward.Closed()
	}
}
