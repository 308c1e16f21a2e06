package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// everyPlace runs fn for both ingress hooks, families and places of a backend, each
// with maps as good as new.
func everyPlace(t *testing.T, r *rig.Rig, fn func(t *testing.T, hook maps.Hook, f family, local bool)) {
	t.Helper()
	for _, hook := range ingressHooks {
		for _, f := range families {
			for place, local := range map[string]bool{"local": true, "remote": false} {
				t.Run(hook.String()+"/"+f.name+"/"+place, func(t *testing.T) {
					r.Reset(t)
					fn(t, hook, f, local)
				})
			}
		}
	}
	// Nothing is routed at pods' links: wherever the backend is, it is as if it were local.
	for _, f := range families {
		t.Run(maps.HookPodIngress.String()+"/"+f.name+"/local", func(t *testing.T) {
			r.Reset(t)
			fn(t, maps.HookPodIngress, f, true)
		})
	}
}

var protos = []maps.Proto{maps.TCP, maps.UDP, maps.SCTP}

// everyCase is everyPlace for all protocols.
func everyCase(t *testing.T, r *rig.Rig, fn func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool)) {
	t.Helper()
	everyCaseOf(t, r, protos, fn)
}

func everyCaseOf(t *testing.T, r *rig.Rig, protos []maps.Proto, fn func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool)) {
	t.Helper()
	for _, proto := range protos {
		t.Run(proto.String(), func(t *testing.T) {
			everyPlace(t, r, func(t *testing.T, hook maps.Hook, f family, local bool) {
				fn(t, hook, f, proto, local)
			})
		})
	}
}

// everyConversation is everyPlace for one protocol, with a service and its one
// backend set up.
func everyConversation(t *testing.T, r *rig.Rig, proto maps.Proto, fn func(c *conversation)) {
	t.Helper()
	everyPlace(t, r, func(t *testing.T, hook maps.Hook, f family, local bool) {
		fn(newConversation(t, r, hook, f, proto, local).serve())
	})
}

func TestConversationFromFirstToLastPacket(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		if proto == maps.UDP {
			c.forward(0, "question")
			c.reply(0, "answer")
			c.forward(0, "again")
			return
		}
		c.handshake()
		c.forward(packet.PSH|packet.ACK, "request")
		c.reply(packet.PSH|packet.ACK, "response, an odd length!")
		c.forward(packet.FIN|packet.ACK, "")
		c.reply(packet.FIN|packet.ACK, "")
		c.forward(packet.ACK, "")
	})
}

func TestHeadersThatMoveThePorts(t *testing.T) {
	edits := map[string]struct {
		edit     func(*packet.Spec)
		family   int // index into families; -1: both
		routable bool
	}{
		"IPv4 options":                 {func(s *packet.Spec) { s.IPOptions = []byte{7, 8, 4, 0, 0, 0, 0, 0} }, 0, true},
		"one IPv6 extension header":    {func(s *packet.Spec) { s.HopByHop = true }, 1, true},
		"three IPv6 extension headers": {func(s *packet.Spec) { s.HopByHop, s.DstOptions = true, 2 }, 1, true},
		"a VLAN tag":                   {func(s *packet.Spec) { s.VLANs = []uint16{rig.VLAN} }, -1, false},
	}
	t.Parallel()
	r := lend(t)
	for name, e := range edits {
		t.Run(name, func(t *testing.T) {
			everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
				if e.family >= 0 && families[e.family].name != f.name || !local && !e.routable {
					return
				}
				c := newConversation(t, r, hook, f, proto, local).serve()
				c.edit = e.edit
				c.forward(packet.SYN, "")
				c.reply(packet.SYN|packet.ACK, "")
				c.forward(packet.ACK, "x")
			})
		})
	}
}
