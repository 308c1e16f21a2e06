package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// A client that is not any more where it was: a pod's address goes to a pod of
// another node, or comes to one of this, with the ports the old one used.

func TestANewOwnerOfAPodsAddressBeginsAnewElsewhere(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for _, proto := range connections {
		for _, f := range families {
			for _, hook := range ingressHooks {
				for name, way := range map[string][2]maps.Hook{
					"left the node": {maps.HookPodIngress, hook}, "came to the node": {hook, maps.HookPodIngress},
				} {
					t.Run(proto.String()+"/"+f.name+"/"+hook.String()+"/"+name, func(t *testing.T) {
						r.Reset(t)
						old := newConversation(t, r, way[0], f, proto, true).serve()
						old.begin()
						old.goOn()
						next := newConversation(t, r, way[1], f, proto, true)
						next.id, next.base = old.id, old.base
						next.learn() // the old one's tuple is its own until it is over
						next.reply(packet.SYN|packet.ACK, "")
						next.forward(packet.ACK, "")
						next.goOn()
						next.wantState(established)
						next.wantFlags(0, 0)
						next.wantConnections(2, 1) // the old one is over
						next.wantLive(1)
					})
				}
			}
		}
	}
}

// Whoever does not know the numbers takes nobody's connection away by a SYN.
func TestASYNElsewhereLeavesAFlowAloneUntilItIsAnswered(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for _, proto := range connections {
		for _, f := range families {
			for _, hook := range ingressHooks {
				t.Run(proto.String()+"/"+f.name+"/"+hook.String(), func(t *testing.T) {
					r.Reset(t)
					pod := newConversation(t, r, maps.HookPodIngress, f, proto, true).serve()
					pod.begin()
					spoofed := newConversation(t, r, hook, f, proto, true)
					spoofed.learn()
					pod.forward(packet.PSH|packet.ACK, "still here")
					pod.reply(packet.PSH|packet.ACK, "so am I")
					pod.wantConnections(1, 0)
				})
			}
		}
	}
}

// A pod has moved to another node, or from one to this, and kept its address: what its
// flows were translated to leads elsewhere. Connections are told, whatever becomes of
// those of other backends that are gone; datagrams go where it is now.
func TestFlowsOfABackendThatHasMovedWithItsAddressAreTold(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if hook == maps.HookPodIngress || proto == maps.SCTP {
			return
		}
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		c.putBackend(func(b *maps.Backend) { b.State, b.Moved = maps.Gone, true })
		if proto == maps.TCP {
			c.wantAnswer(plain(c.spec(c.f.client, c.f.vip, packet.ACK, "x")), maps.VerdictBackendGone, packet.Reset)
			return
		}
		next := newConversation(t, r, hook, f, proto, local).serve()
		next.begin()
		next.goOn()
	})
}

// What a pod of this node has begun at its link goes wherever the address leads.
func TestFlowsOfPodsGoOnToABackendThatHasMoved(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			r.Reset(t)
			c := newConversation(t, r, maps.HookPodIngress, f, maps.TCP, true).serve()
			c.begin()
			c.putBackend(func(b *maps.Backend) { b.State, b.Moved = maps.Gone, true })
			c.goOn()
		})
	}
}
