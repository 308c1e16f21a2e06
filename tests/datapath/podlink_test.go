package datapath

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// Pods' links. Most of what holds there holds at uplinks too, and is tested by
// everyCase; here is what does not.

// place is where a pod's backend is.
type place string

const (
	here      place = "here"
	elsewhere place = "elsewhere"
	itself    place = "itself"
)

// podTalk is what a pod has with a service, by its link.
type podTalk struct {
	*conversation
	where place
}

func newPodTalk(t *testing.T, r *rig.Rig, f family, proto maps.Proto, where place) podTalk {
	t.Helper()
	p := podTalk{newConversation(t, r, maps.HookPodIngress, f, proto, where != elsewhere), where}
	if where == itself {
		p.backend = withAddr(p.backend, f.client.Addr())
	}
	return p
}

func (p podTalk) serve() podTalk {
	p.t.Helper()
	p.conversation.serve()
	return p
}

// everyPodTalk has its service set up.
func everyPodTalk(t *testing.T, r *rig.Rig, fn func(p podTalk)) {
	t.Helper()
	for _, where := range []place{here, elsewhere, itself} {
		for _, f := range families {
			for _, proto := range []maps.Proto{maps.TCP, maps.UDP} {
				t.Run(string(where)+"/"+f.name+"/"+proto.String(), func(t *testing.T) {
					r.Reset(t)
					fn(newPodTalk(t, r, f, proto, where).serve())
				})
			}
		}
	}
}

// asked is what a packet of the pod becomes, asks from port sport.
func (p podTalk) asked(in packet.Spec, sport uint16) (want packet.Spec, action rig.Action, v maps.Verdict) {
	want = in
	want.Src, want.Dst = withPort(in.Src, sport), p.backend
	switch p.where {
	case here:
		return want, rig.Pass, maps.VerdictToLocal
	case elsewhere:
		return want, rig.Pass, maps.VerdictToRemote
	}
	want.Src = withPort(in.Dst, sport)
	want.SrcMAC, want.DstMAC = in.DstMAC, in.SrcMAC
	return want, rig.Sent, maps.VerdictHairpin
}

// answers is a packet of the backend to port dport as it meets the pod's link,
// at hook back, and what becomes of it there.
func (p podTalk) answers(flags packet.Flags, payload string, dport uint16) (in, want packet.Spec, action rig.Action, v maps.Verdict) {
	in = p.spec(p.backend, withPort(p.f.client, dport), flags, payload)
	if p.where == itself {
		in.Dst = withPort(p.f.vip, dport)
	}
	want = in
	want.Src, want.Dst = p.f.vip, p.f.client
	switch p.where {
	case here:
		return in, want, rig.Pass, maps.VerdictReplyLocal
	case elsewhere:
		return in, want, rig.Pass, maps.VerdictReplyRemote
	}
	want.SrcMAC, want.DstMAC = in.DstMAC, in.SrcMAC
	return in, want, rig.Sent, maps.VerdictReplyHairpin
}

func (p podTalk) back() maps.Hook {
	if p.where == itself {
		return maps.HookPodIngress
	}
	return maps.HookPodEgress
}

func (p podTalk) ask(flags packet.Flags, payload string) {
	p.t.Helper()
	p.askFrom(p.f.client.Port(), flags, payload)
}

func (p podTalk) askFrom(sport uint16, flags packet.Flags, payload string) {
	p.t.Helper()
	in := p.spec(p.f.client, p.f.vip, flags, payload)
	want, action, v := p.asked(in, sport)
	p.checkMACs(p.run(maps.HookPodIngress, in), want, action, v, true)
}

func (p podTalk) answer(flags packet.Flags, payload string) {
	p.t.Helper()
	p.answerTo(p.f.client.Port(), flags, payload)
}

func (p podTalk) answerTo(dport uint16, flags packet.Flags, payload string) {
	p.t.Helper()
	in, want, action, v := p.answers(flags, payload, dport)
	p.checkMACs(p.run(p.back(), in), want, action, v, true)
}

func (p podTalk) begin() {
	p.t.Helper()
	p.ask(opening(p.proto), "")
	p.answer(opening(p.proto)|packet.ACK, "")
	p.ask(packet.ACK, "")
}

func (p podTalk) goOn() {
	p.t.Helper()
	p.ask(packet.PSH|packet.ACK, "how are you")
	p.answer(packet.PSH|packet.ACK, "as before")
}

// reverse is the key of the entry of the backend's packets.
func (p podTalk) reverse() maps.FlowKey {
	in, _, _, _ := p.answers(0, "", p.f.client.Port())
	return maps.FlowKey{Src: in.Src, Dst: in.Dst, Proto: p.proto}
}

func TestAPodTalksToAServiceByItsLink(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyPodTalk(t, r, func(p podTalk) {
		p.begin()
		p.goOn()
		p.goOn()
		p.wantConnections(1, 0)
		if p.proto == maps.UDP {
			return
		}
		p.ask(packet.FIN|packet.ACK, "")
		p.answer(packet.FIN|packet.ACK, "")
		p.ask(packet.ACK, "")
		p.wantConnections(1, 1)
		p.begin() // from the same port
		p.goOn()
		p.wantConnections(2, 1)
	})
}

func TestARepeatedHandshakeOfAPodIsTheSame(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyPodTalk(t, r, func(p podTalk) {
		if p.proto == maps.UDP {
			return
		}
		p.ask(packet.SYN, "")
		p.ask(packet.SYN, "")
		p.answer(packet.SYN|packet.ACK, "")
		p.ask(packet.SYN, "")
		p.answer(packet.SYN|packet.ACK, "")
		p.ask(packet.ACK, "")
		p.goOn()
		p.wantConnections(1, 0)
	})
}

func TestARefusalReachesThePod(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyPodTalk(t, r, func(p podTalk) {
		if p.proto == maps.UDP {
			return
		}
		p.ask(packet.SYN, "")
		p.answer(packet.RST|packet.ACK, "")
		p.wantConnections(0, 0)
		p.begin()
		p.ask(packet.RST|packet.ACK, "")
		p.wantConnections(1, 1)
	})
}

// Each half has all the other needs.
func TestEvictedHalvesOfAPodsFlowAreRestored(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyPodTalk(t, r, func(p podTalk) {
		p.begin()
		p.goOn()
		p.evict(p.forwardKey())
		p.age(p.reverse())
		p.answer(packet.PSH|packet.ACK, "your half is back")
		p.goOn()
		p.evict(p.reverse())
		p.age(p.forwardKey())
		p.ask(packet.PSH|packet.ACK, "and so is yours")
		p.goOn()
		p.evict(p.forwardKey())
		p.ask(packet.PSH|packet.ACK, "the service still leads there")
		p.goOn()
		p.wantConnections(1, 0)
	})
}

// What the state of a connection is lost with, answers of a pod to itself
// would not be recognised by.
func TestOnlyAPodsConnectionToItselfIsNotTakenOverMidway(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyPodTalk(t, r, func(p podTalk) {
		if p.proto == maps.UDP {
			return
		}
		if p.where == itself {
			wantOutcome(p.t, p.run(maps.HookPodIngress, p.spec(p.f.client, p.f.vip, packet.ACK, "")), rig.Sent, maps.VerdictNoFlow)
			return
		}
		p.ask(packet.PSH|packet.ACK, "where were we")
		p.answer(packet.PSH|packet.ACK, "here")
		p.goOn()
		p.goOn()
	})
}

// The pod's own port reaches the backend, unless another connection of the pod
// has it there.
func TestAPodHasAnotherPortWhereItsOwnIsTaken(t *testing.T) {
	t.Parallel()
	r, port := lendWith(t, onePort), onePort.SNATMin
	everyPodTalk(t, r, func(p podTalk) {
		p.begin()
		second := p
		second.conversation = newConversation(t, r, maps.HookPodIngress, p.f, p.proto, p.local)
		second.t, second.backend = p.t, p.backend
		if p.where == itself {
			// Only the same address can meet the same port: another port of the service.
			second.f.vip = withPort(p.f.vip, p.f.vip.Port()+1)
		} else {
			second.f.vip = otherVIP(p.f)
		}
		second.serve()
		second.askFrom(port, opening(p.proto), "")
		if p.proto == maps.TCP {
			second.answerTo(port, packet.SYN|packet.ACK, "")
			second.askFrom(port, packet.ACK, "")
		}
		for range 2 {
			second.askFrom(port, packet.PSH|packet.ACK, "how are you")
			second.answerTo(port, packet.PSH|packet.ACK, "well")
			p.goOn()
		}
	})
}

// A pod reaches what is external as if it came from the load balancer.
func TestAtItsLinkAPodIsNotBoundByTheExternalPolicy(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyPodTalk(t, r, func(p podTalk) {
		p.putService(func(s *maps.Service) { s.ExternalLocal, s.Local = true, maps.Table{} })
		p.begin()
		p.goOn()
	})
}

func TestTheInternalPolicyHoldsAtAPodsLink(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyPodTalk(t, r, func(p podTalk) {
		p.putService(func(s *maps.Service) { s.InternalLocal, s.Cluster = true, maps.Table{} })
		p.wantVerdict(opening(p.proto), rig.Drop, maps.VerdictNoBackend)
	})
}

// sight is a packet as it passes devices, and the hooks at which it is translated.
type sight struct {
	name    string
	in      packet.Spec
	acts    []maps.Hook
	verdict maps.Verdict
	first   bool        // the client's, to the service: all datagrams may be the first
	guest   []maps.Hook // where a datagram like that is no Service's, but wants the flow's tuple
}

// The table in bpf/flow/entry.h: every packet of every kind of flow at every hook.
func TestAFlowsPacketsAreTranslatedAtOnePlaceOnly(t *testing.T) {
	t.Parallel()
	r := lend(t)
	check := func(t *testing.T, sights []sight) {
		t.Helper()
		for _, s := range sights {
			for _, h := range allHooks {
				want := maps.VerdictNotService
				if slices.Contains(s.acts, h) {
					want = s.verdict
				} else if s.in.Proto == maps.UDP && (s.first && h != maps.HookTCEgress && h != maps.HookPodEgress || slices.Contains(s.guest, h)) {
					continue // begins a flow of a client that has moved there, or is a guest
				}
				in := s.in
				if h == maps.HookXDP || h == maps.HookTCIngress {
					in.DstMAC = rig.NodeMAC
				}
				if got := send(t, r, h, frame(t, in), rig.Context{}); got.Verdict != want {
					t.Errorf("%s at %s: %s, want %s", s.name, h, got.Verdict, want)
				}
			}
		}
	}
	everyPodTalk(t, r, func(p podTalk) {
		p.begin()
		p.goOn()
		check(p.t, p.sights())
	})
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if hook != maps.HookTCIngress {
			return
		}
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		c.goOn()
		check(t, c.sights())
	})
}

func (p podTalk) sights() []sight {
	const flags = packet.PSH | packet.ACK
	ask := p.spec(p.f.client, p.f.vip, flags, "x")
	asked, _, to := p.asked(ask, p.f.client.Port())
	answer, answered, _, from := p.answers(flags, "y", p.f.client.Port())
	return []sight{
		{name: "what the pod sends", in: ask, acts: []maps.Hook{maps.HookPodIngress}, verdict: to, first: true},
		{name: "what goes to the backend", in: asked, guest: []maps.Hook{maps.HookPodIngress}},
		{name: "what the backend sends", in: answer, acts: []maps.Hook{p.back()}, verdict: from},
		{name: "what goes to the pod", in: answered},
	}
}

func (c *conversation) sights() []sight {
	const flags = packet.PSH | packet.ACK
	ingress := []maps.Hook{maps.HookXDP, maps.HookTCIngress}
	ask, answer := c.spec(c.f.client, c.f.vip, flags, "x"), c.replyOf(flags, "y")
	asked, answered := ask, answer
	asked.Dst, answered.Src = c.backend, c.f.vip
	if c.local {
		return []sight{
			{name: "what the client sends", in: ask, acts: ingress, verdict: maps.VerdictToLocal, first: true},
			{name: "what goes to the backend", in: asked, guest: ingress},
			{name: "what the backend sends", in: answer, acts: []maps.Hook{maps.HookTCEgress}, verdict: maps.VerdictReplyLocal},
			{name: "what goes to the client", in: answered},
		}
	}
	asked.Src, answered.Dst = answer.Dst, c.f.client
	return []sight{
		{name: "what the client sends", in: ask, acts: ingress, verdict: maps.VerdictToRemote, first: true},
		{name: "what goes to the backend", in: asked, guest: []maps.Hook{maps.HookTCEgress}},
		{name: "what the backend sends", in: answer, acts: ingress, verdict: maps.VerdictReplyRemote},
		{name: "what goes to the client", in: answered},
	}
}

// Nothing of a handshake either, before there is a flow.
func TestTheBackendsSYNACKIsTranslatedAtThePodsLinkOnly(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyPodTalk(t, r, func(p podTalk) {
		if p.proto == maps.UDP {
			return
		}
		p.ask(packet.SYN, "")
		in, _, _, _ := p.answers(packet.SYN|packet.ACK, "", p.f.client.Port())
		for _, h := range allHooks {
			if h != p.back() {
				wantOutcome(p.t, p.run(h, in), rig.Pass, maps.VerdictNotService)
			}
		}
		p.answer(packet.SYN|packet.ACK, "")
	})
}

// Two pods and a service of both: each is client and backend, also of itself.
func TestPodsMayBeBackendsOfEachOther(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for _, f := range families {
		for _, proto := range []maps.Proto{maps.TCP, maps.UDP} {
			t.Run(f.name+"/"+proto.String(), func(t *testing.T) {
				r.Reset(t)
				a, b := f, f
				b.client = netip.AddrPortFrom(f.client.Addr().Next(), f.client.Port()+1)
				b.vip = otherVIP(f)
				ab, ba := newPodTalk(t, r, a, proto, here), newPodTalk(t, r, b, proto, here)
				ab.backend, ba.backend = withAddr(ab.backend, b.client.Addr()), withAddr(ba.backend, a.client.Addr())
				self := a
				self.vip = otherVIP(b)
				aa := newPodTalk(t, r, self, proto, itself)
				all := []podTalk{ab.serve(), ba.serve(), aa.serve()}
				for _, p := range all {
					p.begin()
				}
				for _, p := range all {
					p.goOn()
				}
			})
		}
	}
}
