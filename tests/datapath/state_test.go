package datapath

import (
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// Which of the three maps a flow is in, and crowds of clients that change it.

// state is the map a flow is in.
type state string

const (
	unknown     state = "in no map"
	halfOpen    state = "half open"
	established state = "established"
	closed      state = "closed"
)

// entries are the two halves of a flow in one map.
type entries struct {
	forward, reverse bool
}

// found tells in which maps the halves of the flow are.
func (c *conversation) found() map[state]entries {
	c.t.Helper()
	all := make(map[state]entries)
	for s, m := range map[state]maps.Flows{halfOpen: c.r.Set.HalfOpen(), established: c.r.Set.Flows(), closed: c.r.Set.Closed()} {
		var e entries
		var errs [2]error
		_, e.forward, errs[0] = m.Lookup(c.forwardKey())
		if c.local || c.snat != 0 {
			_, e.reverse, errs[1] = m.Lookup(c.reverseKey())
		}
		for _, err := range errs {
			if err != nil {
				c.t.Fatal(err)
			}
		}
		if e != (entries{}) {
			all[s] = e
		}
	}
	return all
}

// wantState checks that the flow is in that map and in no other. Of one that is
// not established a half may be missing.
func (c *conversation) wantState(want state) {
	c.t.Helper()
	found := c.found()
	e, ok := found[want]
	switch {
	case want == unknown && len(found) == 0:
	case !ok || len(found) != 1:
		c.t.Fatalf("the flow is in %v, want it %s", found, want)
	case want != halfOpen && e != entries{true, true}:
		c.t.Fatalf("%s is half of the flow only: %+v", want, e)
	}
}

// forget removes every entry of the flow, as if the node had been away.
func (c *conversation) forget() {
	c.t.Helper()
	for _, m := range []maps.Flows{c.r.Set.HalfOpen(), c.r.Set.Flows(), c.r.Set.Closed()} {
		for _, k := range []maps.FlowKey{c.forwardKey(), c.reverseKey()} {
			if err := m.Delete(k); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

// another is a conversation of another client with the service of c.
func (c *conversation) another(client netip.AddrPort) *conversation {
	next := *c
	next.f.client, next.snat = client, 0
	return &next
}

// company is n clients with an established flow each, to the service of c.
func (c *conversation) company(n int) []*conversation {
	c.t.Helper()
	all := make([]*conversation, n)
	for i := range all {
		all[i] = c.another(withPort(c.f.client, uint16(50000+i)))
		all[i].begin()
	}
	return all
}

// wantAlive checks that all flows are established, and goes on with them.
func wantAlive(all []*conversation) {
	lost := 0
	for _, c := range all {
		c.t.Helper()
		if c.found()[established] != (entries{true, true}) {
			lost++
		}
	}
	if lost > 0 {
		all[0].t.Fatalf("of %d established flows %d were lost", len(all), lost)
	}
	for _, c := range all {
		c.reply(packet.PSH|packet.ACK, "are you still there?")
		c.forward(packet.PSH|packet.ACK, "as before")
	}
}

// many is n, or with -test.short a quarter of it: for machines that are emulated.
// What floods are to overflow is smaller than that.
func many(n int) int {
	if testing.Short() {
		return n / 4
	}
	return n
}

// crowd is n clients nobody has met, from ports beyond those that are lent.
func (f family) crowd(n int) []netip.AddrPort {
	addr := netip.MustParseAddr("198.18.0.0")
	if f.client.Addr().Is6() {
		addr = netip.MustParseAddr("2001:db8:198::")
	}
	all := make([]netip.AddrPort, n)
	for i := range all {
		if i%1000 == 0 {
			addr = addr.Next()
		}
		all[i] = netip.AddrPortFrom(addr, uint16(41000+i%1000))
	}
	return all
}

// said is one packet of a talk.
type said struct {
	byBackend bool
	flags     packet.Flags
	payload   string
	edit      func(*packet.Spec)
}

// blind makes a packet acknowledge what nobody sent, and gives it a tag that
// nobody chose.
func blind(s *packet.Spec) {
	s.Ack += 77777
	s.Tag ^= 0x5a5a
}

// opens is the talk that establishes a flow, and closes what then ends it.
func opens(proto maps.Proto) []said {
	return []said{{flags: opening(proto)}, {byBackend: true, flags: opening(proto) | packet.ACK}, {flags: packet.ACK}}
}

func closes() []said {
	return []said{{flags: packet.FIN | packet.ACK}, {byBackend: true, flags: packet.FIN | packet.ACK}, {flags: packet.ACK}}
}

// atOnce is how many clients of a crowd talk at the same time.
const atOnce = 16

// hear has every client of a crowd talk to the service of c, a few at a time. With
// a backend elsewhere the ports are not known, so then only clients can talk.
func (c *conversation) hear(crowd []netip.AddrPort, talk ...said) map[maps.Verdict]uint64 {
	c.t.Helper()
	verdicts := make(map[maps.Verdict]uint64)
	for len(crowd) > 0 {
		n := min(atOnce, len(crowd))
		for _, s := range talk {
			hook, frames := c.hook, make([][]byte, n)
			if s.byBackend {
				hook = c.backHook()
			}
			for i, client := range crowd[:n] {
				frames[i] = c.another(client).frameOf(s)
			}
			for v, times := range c.r.Flood(c.t, hook, frames) {
				verdicts[v] += times
			}
		}
		crowd = crowd[n:]
	}
	return verdicts
}

func (c *conversation) frameOf(s said) []byte {
	c.t.Helper()
	in := c.spec(c.f.client, c.f.vip, s.flags, s.payload)
	if s.byBackend {
		in = c.replyOf(s.flags, s.payload)
	}
	if s.edit != nil {
		s.edit(&in)
	}
	return frame(c.t, in)
}

// backendSays sends a packet of the backend and checks only what became of it.
func (c *conversation) backendSays(in packet.Spec) rig.Result {
	c.t.Helper()
	if c.local {
		return c.run(c.backHook(), in)
	}
	return c.run(c.hook, in)
}

// everyTalk is everyCase with the service set up.
func everyTalk(t *testing.T, r *rig.Rig, fn func(c *conversation)) {
	t.Helper()
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		fn(newConversation(t, r, hook, f, proto, local).serve())
	})
}

// someLocal is for what takes many packets: each hook and each family once, with a
// backend on this node and its service set up.
func someLocal(t *testing.T, r *rig.Rig, protos []maps.Proto, fn func(c *conversation)) {
	t.Helper()
	hooks := []maps.Hook{maps.HookXDP, maps.HookTCIngress, maps.HookPodIngress}
	for _, proto := range protos {
		for i, hook := range hooks {
			f := families[i%len(families)]
			t.Run(proto.String()+"/"+hook.String()+"/"+f.name, func(t *testing.T) {
				r.Reset(t)
				fn(newConversation(t, r, hook, f, proto, true).serve())
			})
		}
	}
}
