package datapath

import (
	"encoding/binary"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// Two CPUs at once.

// races is how often each is tried.
func races() int { return many(120) }

// shot is a packet of either side, ready to go.
func (c *conversation) shot(s said) rig.Shot {
	c.t.Helper()
	hook := c.hook
	if s.byBackend && c.local {
		hook = c.backHook()
	}
	return rig.Shot{Hook: hook, Frame: c.frameOf(s)}
}

// everyRace has two packets of a flow, or of two, meet. TC only: what they meet in
// is the same.
func everyRace(t *testing.T, r *rig.Rig, protos []maps.Proto, fn func(c *conversation)) {
	t.Helper()
	for _, proto := range protos {
		for name, local := range map[string]bool{"local": true, "remote": false} {
			t.Run(proto.String()+"/"+name, func(t *testing.T) {
				r.Reset(t)
				c := newConversation(t, r, maps.HookTCIngress, families[0], proto, local).serve()
				for i, client := range c.f.crowd(races()) {
					if i%64 == 0 {
						r.ResetFlows(t)
					}
					fn(c.another(client))
				}
			})
		}
	}
}

func TestTwoFirstPacketsAtOnceMakeOneFlow(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRace(t, r, protos, func(c *conversation) {
		first := c.shot(said{flags: opening(c.proto), payload: "x"})
		var ports [2]uint16
		for i, got := range c.r.Race(c.t, first, first) {
			if got.Action == rig.Drop {
				c.t.Fatalf("packet %d was dropped", i)
			}
			ports[i] = binary.BigEndian.Uint16(got.Frame[c.first().L4():])
		}
		if ports[0] != ports[1] {
			c.t.Fatalf("one flow has the source ports %d and %d", ports[0], ports[1])
		}
		if c.local && ports[0] != c.f.client.Port() {
			c.t.Fatalf("the client's port %d became %d", c.f.client.Port(), ports[0])
		}
	})
}

// A burst of the client's, spread over two queues.
func TestTwoPacketsThatEstablishAFlowCountItOnce(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRace(t, r, protos, func(c *conversation) {
		before := c.counts()
		c.forward(opening(c.proto), "")
		c.reply(opening(c.proto)|packet.ACK, "")
		c.r.Race(c.t, c.shot(said{flags: packet.ACK}), c.shot(said{flags: packet.ACK, payload: "GET /"}))
		c.wantState(established)
		if opened := c.counts().Opened - before.Opened; opened != 1 {
			c.t.Fatalf("one flow was counted %d times", opened)
		}
	})
}

// Where a packet looks for its flow, it is on its way to somewhere else.
func TestAPacketThatMeetsItsFlowBeingEstablishedGoesOnInIt(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for name, meets := range map[string]said{
		"the client's":  {payload: "more"},
		"the backend's": {byBackend: true, payload: "more"},
	} {
		t.Run(name, func(t *testing.T) {
			everyRace(t, r, protos, func(c *conversation) {
				meets := meets
				meets.flags = opening(c.proto) &^ packet.SYN
				if c.proto == maps.TCP {
					meets.flags |= packet.ACK
				}
				c.forward(opening(c.proto), "x")
				c.reply(opening(c.proto)|packet.ACK, "x")
				proof := said{flags: packet.ACK}
				got := c.r.Race(c.t, c.shot(proof), c.shot(meets))
				c.wantPorts(got[0], c.source().Port(), c.backend.Port())
				if meets.byBackend {
					c.wantPorts(got[1], c.f.vip.Port(), c.f.client.Port())
				} else {
					c.wantPorts(got[1], c.source().Port(), c.backend.Port())
				}
			})
		})
	}
}

// wantPorts checks what a packet that met another was translated to.
func (c *conversation) wantPorts(got rig.Result, src, dst uint16) {
	c.t.Helper()
	l4 := got.Frame[c.first().L4():]
	if s, d := binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:]); got.Action == rig.Drop || s != src || d != dst {
		c.t.Fatalf("%s, from port %d to %d; want %d to %d", got.Action, s, d, src, dst)
	}
}

// The client's ACK meets the backend's first data.
func TestBothSidesEstablishAFlowAtOnceAndItIsCountedOnce(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRace(t, r, connections, func(c *conversation) {
		before := c.counts()
		c.forward(packet.SYN, "")
		c.reply(packet.SYN|packet.ACK, "")
		c.r.Race(c.t, c.shot(said{flags: packet.ACK}), c.shot(said{byBackend: true, flags: packet.ACK, payload: "220 ready"}))
		c.wantState(established)
		if opened := c.counts().Opened - before.Opened; opened != 1 {
			c.t.Fatalf("one flow was counted %d times", opened)
		}
	})
}

func TestBothSidesCloseAtOnceAndItIsCountedOnce(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for name, flags := range map[string]packet.Flags{"FIN": packet.FIN | packet.ACK, "RST": packet.RST} {
		t.Run(name, func(t *testing.T) {
			everyRace(t, r, []maps.Proto{maps.TCP}, func(c *conversation) {
				before := c.counts()
				c.begin()
				c.r.Age(c.t, 1) // each is the first of a tick
				c.r.Race(c.t, c.shot(said{flags: flags}), c.shot(said{byBackend: true, flags: flags}))
				if opened, closed := c.counts().Opened-before.Opened, c.counts().Closed-before.Closed; opened != 1 || closed != 1 {
					c.t.Fatalf("one connection was opened %d times and closed %d times: %v", opened, closed, c.found())
				}
				c.wantState(closed)
			})
		})
	}
}

// The backend resets the old connection while its client begins the next one.
func TestASYNThatMeetsTheEndOfTheOldConnectionBeginsANewOne(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRace(t, r, connections, func(c *conversation) {
		before := c.counts()
		c.begin()
		c.r.Age(c.t, 1)
		c.r.Race(c.t, c.shot(said{flags: packet.SYN}), c.shot(said{byBackend: true, flags: packet.RST}))
		c.snat = 0
		c.begin()
		c.goOn()
		c.wantState(established)
		n := c.counts()
		if live := n.Opened - before.Opened - (n.Closed - before.Closed); live != 1 {
			c.t.Fatalf("%d live connections, and there is one", int64(live))
		}
		c.end(ends["backend's RST"](c.proto))
		c.wantState(closed)
	})
}

// The client of a flow comes back for a port that is just being taken from it.
func TestAPortThatIsTakenWhileItsClientComesBackHasOneOwner(t *testing.T) {
	t.Parallel()
	r := lendWith(t, onePort)
	for name, leave := range map[string]struct {
		said []said
		age  uint32
		back said
	}{
		"answered": {opens(maps.TCP)[:2], 5, said{flags: packet.ACK}},
		"reset":    {append(opens(maps.TCP), said{flags: packet.RST}), 5, said{flags: packet.ACK, payload: "that was not me"}},
		"silent":   {opens(maps.TCP), 90_000, said{flags: packet.ACK, payload: "back again"}},
	} {
		t.Run(name, func(t *testing.T) {
			r.Reset(t)
			first := newConversation(t, r, maps.HookTCIngress, families[0], maps.TCP, false).serve()
			owners := make(map[bool]int)
			for range races() {
				r.ResetFlows(t)
				first.snat = 0
				for _, s := range leave.said {
					in := first.spec(first.f.client, first.f.vip, s.flags, "")
					if s.byBackend {
						in = first.replyOf(s.flags, "")
					}
					first.say(in)
				}
				r.Age(t, leave.age)
				second := first.another(withPort(first.f.client, 60000))
				got := r.Race(t, first.shot(leave.back), second.shot(said{flags: packet.SYN}))
				second.snat = first.snat
				took := got[1].Action == rig.Sent
				owners[took]++
				if took && first.found()[established] != (entries{}) {
					t.Fatalf("the port has two owners: the first is in %v, the second in %v", first.found(), second.found())
				}
				if !took {
					first.goOn()
					first.wantState(established)
				} else {
					second.reply(packet.SYN|packet.ACK, "")
					second.forward(packet.ACK, "")
					second.goOn()
					second.wantState(established)
				}
			}
			t.Logf("the first kept it %d times, the second took it %d times", owners[false], owners[true])
		})
	}
}

// An entry that is removed is another flow's at once, perhaps while a packet of the
// first is still on its way by it.
func TestNoPacketIsSentOnByAnothersEntry(t *testing.T) {
	t.Parallel()
	rounds := many(300)
	r := lendWith(t, tiny)
	c := newConversation(t, r, maps.HookTCIngress, families[0], maps.TCP, true).serve()
	mine := c.another(c.f.crowd(1)[0])
	other := newConversation(t, r, maps.HookTCIngress, withVIPPort(c.f, 99), maps.TCP, true)
	other.backend = otherBackend(c.backend)
	other.serve()
	in := mine.spec(mine.f.client, mine.f.vip, packet.ACK, "mine")
	want := in
	want.Dst = mine.backend
	good := frame(t, want)
	for range rounds {
		mine.begin()
		other.forward(packet.SYN, "")
		other.reply(packet.SYN|packet.ACK, "")
		mine.forward(packet.FIN|packet.ACK, "")
		mine.reply(packet.PSH|packet.ACK, "last")
		// The end of the one and the beginning of the other, beside packets of the first.
		ends := []rig.Shot{mine.shot(said{byBackend: true, flags: packet.RST}), other.shot(said{flags: packet.ACK})}
		var mines []rig.Shot
		for range 8 {
			mines = append(mines, rig.Shot{Hook: mine.hook, Frame: frame(t, in)})
		}
		for i, got := range r.RaceAll(t, mines, ends)[0] {
			if got.Action == rig.Drop {
				continue // what was rewritten by both goes nowhere
			}
			if d := packet.Diff(good, got.Frame); d != "" {
				t.Fatalf("packet %d was sent on as another's:\n%s", i, d)
			}
		}
		r.ResetFlows(t)
	}
}
