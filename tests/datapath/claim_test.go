package datapath

import (
	"slices"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// Source ports: which one a flow gets, and who has to give his up.

// everyProtoElsewhere runs fn at both ingress hooks for backends elsewhere.
func everyProtoElsewhere(t *testing.T, r *rig.Rig, fn func(t *testing.T, hook maps.Hook, f family, proto maps.Proto)) {
	t.Helper()
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if !local {
			fn(t, hook, f, proto)
		}
	})
}

// Traces of both sides can then be compared by it.
func TestAClientsOwnPortIsKeptWhereItIsOneOfOurs(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyProtoElsewhere(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto) {
		for i, port := range []uint16{1024, 12345, 29999} {
			c := newConversation(t, r, hook, withClient(f, port), proto, false)
			if i == 0 {
				c.serve()
			}
			c.begin()
			if c.snat != port {
				t.Errorf("client port %d became %d", port, c.snat)
			}
			c.goOn()
		}
		second := newConversation(t, r, hook, withClient(f, 12345), proto, false)
		second.f.client = withAddr(second.f.client, second.f.client.Addr().Next())
		second.begin()
		if second.snat == 12345 {
			t.Error("two clients share a port")
		}
	})
}

// manyPorts is a range in which it can be measured how many can be used.
func manyPorts() rig.Config {
	return rig.Config{SNATMin: 2000, SNATMax: uint16(2000 + many(8192) - 1), Sizes: maps.Sizes{Flows: 1 << 15, HalfOpen: 1 << 16}}
}

// With 40 tries as good as random ones a client is refused with a probability of
// occupancy^40: 0.01 % at 80 %, 1.5 % at 90 %, 13 % at 95 %.
func TestSourcePortsAreFoundUntilNearlyAllAreInUse(t *testing.T) {
	t.Parallel()
	bands := []struct {
		until, refused float64 // shares: of all ports, of those who come meanwhile
	}{{0.5, 0}, {0.8, 0.001}, {0.9, 0.02}, {0.95, 0.12}}
	r := lendWith(t, manyPorts())
	ports := float64(many(8192))
	for _, proto := range protos {
		t.Run(proto.String(), func(t *testing.T) {
			r.Reset(t)
			c := newConversation(t, r, maps.HookXDP, families[0], proto, false).serve()
			crowd := c.f.crowd(3 * int(ports))
			inUse := 0.0
			for _, band := range bands {
				came, refused := 0.0, 0.0
				for inUse < band.until*ports {
					n := int(min(512, band.until*ports-inUse+1))
					verdicts := c.hear(crowd[:n], said{flags: opening(proto)})
					crowd = crowd[n:]
					came += float64(n)
					refused += float64(verdicts[maps.VerdictSNATExhausted])
					inUse += float64(verdicts[maps.VerdictToRemote] + verdicts[maps.VerdictLeftToTC])
				}
				if share := refused / came; share > band.refused {
					t.Errorf("until %.0f %% of the ports were in use %.2f %% of the clients were refused, want at most %.2f %%",
						100*band.until, 100*share, 100*band.refused)
				}
			}
		})
	}
}

// claimants are flows as they may be when another one wants their port: after keeps
// seconds of silence they do not give it up, after gives they do. After kept seconds
// they are still there if nobody wants it, after gone not any more.
var claimants = map[string]struct {
	protos       []maps.Proto
	leave        func(c *conversation)
	keeps, gives uint32
	kept, gone   uint32
}{
	"unanswered SYN": {[]maps.Proto{maps.TCP}, (*conversation).ask, 0, 3, 18, 22},
	"unanswered":     {[]maps.Proto{maps.UDP, maps.SCTP}, (*conversation).ask, 0, 3, 28, 33},
	"answered SYN":   {[]maps.Proto{maps.TCP}, func(c *conversation) { c.ask(); c.answer() }, 2, 5, 18, 22},
	"answered":       {[]maps.Proto{maps.UDP, maps.SCTP}, func(c *conversation) { c.ask(); c.answer() }, 2, 5, 28, 33},
	"one way":        {[]maps.Proto{maps.UDP}, func(c *conversation) { c.ask(); c.ask() }, 0, 5, 28, 33},
	"closed":         {[]maps.Proto{maps.TCP}, func(c *conversation) { c.begin(); c.closeByFIN() }, 2, 5, 58, 64},
	"reset":          {connections, func(c *conversation) { c.begin(); c.forward(packet.RST, "") }, 2, 5, 58, 64},
	"half closed":    {[]maps.Proto{maps.TCP}, func(c *conversation) { c.begin(); c.forward(packet.FIN|packet.ACK, "") }, 3500, 3700, 3500, 3700},
	"established":    {[]maps.Proto{maps.TCP}, (*conversation).begin, 86_000, 87_000, 86_000, 87_000},
	"associated":     {[]maps.Proto{maps.SCTP}, (*conversation).begin, 200, 220, 200, 220},
	"datagrams":      {[]maps.Proto{maps.UDP}, (*conversation).begin, 28, 33, 28, 33},
	"UDP, a stream":  {[]maps.Proto{maps.UDP}, (*conversation).stream, 150, 190, 170, 190},
}

// timeouts are how long an established flow may be silent, in seconds.
var timeouts = map[maps.Proto]uint32{maps.TCP: 86_400, maps.UDP: 180, maps.SCTP: 210}

func (c *conversation) ask()    { c.t.Helper(); c.forward(opening(c.proto), "") }
func (c *conversation) answer() { c.t.Helper(); c.reply(opening(c.proto)|packet.ACK, "") }

// stream exchanges datagrams for more than two seconds.
func (c *conversation) stream() {
	c.t.Helper()
	c.begin()
	c.r.Age(c.t, 3)
	c.goOn()
}

// ticks is how many are as long as so many seconds.
func ticks(r *rig.Rig, seconds uint32) uint32 {
	return uint32(float64(seconds) / r.Clock.Tick().Seconds())
}

// Nobody but the datapath is needed for it: the agent may be away.
func TestAPortIsTakenFromWhomIsOverButFromNobodyElse(t *testing.T) {
	t.Parallel()
	r := lendWith(t, eightPorts)
	for name, claimant := range claimants {
		t.Run(name, func(t *testing.T) {
			everyProtoElsewhere(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto) {
				if !slices.Contains(claimant.protos, proto) {
					return
				}
				first := newConversation(t, r, hook, f, proto, false).serve()
				begun := tick(t, r)
				for i := range uint16(8) {
					claimant.leave(first.another(withPort(f.client, 40000+i)))
				}
				r.Age(t, ticks(r, claimant.keeps))
				if tick(t, r) == begun { // else they are older than that
					later := first.another(withPort(f.client, 50000))
					later.wantVerdict(opening(proto), rig.Drop, maps.VerdictSNATExhausted)
				}
				r.Age(t, ticks(r, claimant.gives-claimant.keeps)+1)
				for i := range uint16(8) {
					c := first.another(withPort(f.client, 50000+i))
					c.begin()
					c.wantState(established)
					c.goOn()
				}
				first.another(withPort(f.client, 60000)).wantVerdict(opening(proto), rig.Drop, maps.VerdictSNATExhausted)
			})
		})
	}
}

// Both halves have to be silent: of a stream nobody answers, or of a server that
// only sends, just one of them ever moves.
func TestAPortIsKeptByAFlowThatIsHeardInOneDirection(t *testing.T) {
	t.Parallel()
	r := lendWith(t, onePort)
	directions := map[string]func(c *conversation){
		"the client":  func(c *conversation) { c.forward(packet.ACK, "x") },
		"the backend": func(c *conversation) { c.reply(packet.ACK, "x") },
	}
	for name, speak := range directions {
		t.Run(name, func(t *testing.T) {
			everyProtoElsewhere(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto) {
				c := newConversation(t, r, hook, f, proto, false).serve()
				c.stream()
				later := c.another(withPort(f.client, 50000))
				for range 4 {
					r.Age(t, ticks(r, timeouts[proto])*3/4)
					speak(c)
					later.wantVerdict(opening(proto), rig.Drop, maps.VerdictSNATExhausted)
				}
				c.goOn()
				r.Age(t, ticks(r, timeouts[proto])*5/4)
				later.begin()
				later.goOn()
			})
		})
	}
}

// Whom it was taken from is not heard any more, and does not hear the other's.
func TestWhoGaveHisPortUpIsNotHeardBesideItsNextOwner(t *testing.T) {
	t.Parallel()
	r := lendWith(t, onePort)
	for _, name := range []string{"answered SYN", "answered", "closed", "reset"} {
		claimant := claimants[name]
		t.Run(name, func(t *testing.T) {
			everyProtoElsewhere(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto) {
				if !slices.Contains(claimant.protos, proto) {
					return
				}
				first := newConversation(t, r, hook, f, proto, false).serve()
				claimant.leave(first)
				r.Age(t, ticks(r, claimant.gives)+1)
				second := first.another(withPort(f.client, 50000))
				second.begin()
				if first.snat != second.snat {
					t.Fatalf("the ports are %d and %d, and there is one only", first.snat, second.snat)
				}
				in := first.spec(f.client, f.vip, packet.PSH|packet.ACK, "late")
				if got := first.run(hook, in); got.Action == rig.Sent && got.Verdict == maps.VerdictToRemote {
					t.Errorf("what the first one says late reaches the backend as the second's")
				}
				second.wantState(established)
				second.goOn()
				second.wantConnections(first.counts().Opened, first.counts().Closed)
			})
		})
	}
}

// Opened by one, and its port by nobody else, however many packets it sends.
func TestAFloodBetweenSYNACKAndACKLosesNoHandshake(t *testing.T) {
	t.Parallel()
	r := lendWith(t, rig.Config{Sizes: maps.Sizes{Flows: 1 << 12, HalfOpen: 1 << 10}})
	everyConnection(t, r, func(c *conversation) {
		c.forward(packet.SYN, "")
		c.reply(packet.SYN|packet.ACK, "")
		c.hear(c.f.crowd(many(5000)), said{flags: packet.SYN})
		c.forward(packet.ACK, "")
		c.forward(packet.PSH|packet.ACK, "GET /")
		c.reply(packet.PSH|packet.ACK, "200")
		c.wantState(established)
		c.wantConnections(1, 0)
	})
}
