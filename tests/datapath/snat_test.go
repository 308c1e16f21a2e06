package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// All the source ports that there are towards a backend.
var (
	eightPorts = rig.Config{SNATMin: 2000, SNATMax: 2007}
	onePort    = rig.Config{SNATMin: 2000, SNATMax: 2000, ResetGone: true, VIPEcho: true, UnknownFlow: loader.UnknownPeer}
)

// With eight ports towards a backend the ninth flow is refused, and the eight go on.
func TestWithoutAFreeSourcePortAFlowIsRefused(t *testing.T) {
	const ports = 8
	t.Parallel()
	r := lendWith(t, eightPorts)
	for _, hook := range ingressHooks {
		for _, f := range families {
			for _, proto := range protos {
				t.Run(hook.String()+"/"+f.name+"/"+proto.String(), func(t *testing.T) {
					r.Reset(t)
					all := occupy(t, r, hook, f, proto, ports)
					ninth := newConversation(t, r, hook, withClient(f, 50000), proto, false)
					got := ninth.run(hook, ninth.spec(ninth.f.client, f.vip, opening(proto), ""))
					if got.Verdict != maps.VerdictSNATExhausted || got.Action != rig.Drop {
						t.Errorf("the ninth flow: %s and %s, want it dropped as %s", got.Action, got.Verdict, maps.VerdictSNATExhausted)
					}
					for _, c := range all {
						c.forward(packet.ACK, "x")
						c.reply(packet.ACK, "y")
					}
				})
			}
		}
	}
}

// occupy begins n flows to one backend and checks that no two share a port.
func occupy(t *testing.T, r *rig.Rig, hook maps.Hook, f family, proto maps.Proto, n int) []*conversation {
	t.Helper()
	var all []*conversation
	seen := make(map[uint16]bool)
	for i := range n {
		c := newConversation(t, r, hook, withClient(f, uint16(40000+i)), proto, false)
		if i == 0 {
			c.serve()
		}
		c.begin()
		if seen[c.snat] || c.snat < eightPorts.SNATMin || c.snat > eightPorts.SNATMax {
			t.Fatalf("flow %d got source port %d: it is taken or out of range", i, c.snat)
		}
		seen[c.snat] = true
		all = append(all, c)
	}
	return all
}

func opening(proto maps.Proto) packet.Flags {
	if proto == maps.UDP {
		return 0
	}
	return packet.SYN
}

// The node's address is all that the backend sees of them.
func TestClientsWithOnePortReachABackendFromDifferentPorts(t *testing.T) {
	t.Parallel()
	const clients = 8
	r := lendWith(t, eightPorts)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if local {
			return
		}
		var all []*conversation
		used := make(map[uint16]bool)
		for range clients {
			c := newConversation(t, r, hook, f, proto, false)
			if len(all) == 0 {
				c.serve()
			}
			c.begin()
			used[c.snat] = true
			all = append(all, c)
			f.client = withAddr(f.client, f.client.Addr().Next())
		}
		if len(used) != clients {
			t.Errorf("%d clients came from %d ports", clients, len(used))
		}
		for _, c := range all {
			c.goOn()
		}
	})
}

// Its reverse half is what holds a port.
func TestAPortIsFreeAgainWhenItsFlowIsGone(t *testing.T) {
	t.Parallel()
	r := lendWith(t, onePort)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if local {
			return
		}
		c := newConversation(t, r, hook, f, proto, false).serve()
		c.begin()
		later := newConversation(t, r, hook, withClient(f, 40002), proto, false)
		later.wantVerdict(opening(proto), rig.Drop, maps.VerdictSNATExhausted)
		c.evict(c.forwardKey())
		later.wantVerdict(opening(proto), rig.Drop, maps.VerdictSNATExhausted)
		c.evict(c.reverseKey())
		later.begin()
		later.goOn()
	})
}
