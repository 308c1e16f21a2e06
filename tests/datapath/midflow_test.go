package datapath

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// The middle of a connection nobody knows: the state was lost, or the
// connection came over from another node.

// several makes a service of n backends of one place and returns them.
func several(c *conversation, n int) []netip.AddrPort {
	c.t.Helper()
	var addrs []netip.AddrPort
	var backends []maps.Backend
	for addr := c.backend.Addr(); len(addrs) < n; addr = addr.Next() {
		addrs = append(addrs, netip.AddrPortFrom(addr, c.backend.Port()))
		backends = append(backends, rig.Backend(addrs[len(addrs)-1].String(), c.local))
	}
	c.r.AddService(c.t, c.f.frontend(c.proto), backends...)
	return addrs
}

// chosen is which of the local backends addrs a translated frame went to.
func (c *conversation) chosen(got rig.Result, in packet.Spec, addrs []netip.AddrPort) netip.AddrPort {
	c.t.Helper()
	for _, addr := range addrs {
		want := in
		want.Dst = addr
		if packet.Diff(frame(c.t, want), got.Frame) == "" {
			return addr
		}
	}
	c.t.Fatalf("%s, and the frame went to no backend of the service", got.Verdict)
	return netip.AddrPort{}
}

// The table leads the same tuple to the same backend, and the client's address
// and port reach it as before.
func TestALocalConnectionSurvivesTheLossOfAllState(t *testing.T) {
	t.Parallel()
	r := lend(t)
	used := make(map[netip.AddrPort]bool)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if !local || proto == maps.UDP {
			return
		}
		for port := range uint16(8) {
			r.Reset(t)
			c := newConversation(t, r, hook, withClient(f, 41000+port), proto, true)
			addrs := several(c, 5)
			syn := c.spec(c.f.client, c.f.vip, packet.SYN, "")
			c.backend = c.chosen(c.run(hook, syn), syn, addrs)
			c.reply(packet.SYN|packet.ACK, "")
			c.forward(packet.ACK, "")
			c.evict(c.forwardKey())
			c.evict(c.reverseKey())
			c.goOn()
			c.goOn()
			c.wantFlags(0, 0)
			used[c.backend] = true
		}
	})
	if len(used) < 2 {
		t.Errorf("all connections went to %v: that proves nothing", used)
	}
}

// Its source port is lost with its state.
func TestARemoteConnectionNobodyKnowsIsDropped(t *testing.T) {
	t.Parallel()
	r := lend(t)
	unknownRemote(t, r, rig.Drop, maps.VerdictNoFlow)
}

func TestARemoteConnectionNobodyKnowsPassesIfConfigured(t *testing.T) {
	t.Parallel()
	r := lendWith(t, rig.Config{PassUnknownFlows: true})
	unknownRemote(t, r, rig.Pass, maps.VerdictNotService)
}

func unknownRemote(t *testing.T, r *rig.Rig, action rig.Action, verdict maps.Verdict) {
	t.Helper()
	for _, flags := range []packet.Flags{packet.ACK, packet.PSH | packet.ACK, packet.FIN | packet.ACK, packet.RST} {
		t.Run(fmt.Sprintf("flags %#x", uint8(flags)), func(t *testing.T) {
			everyConnection(t, r, func(c *conversation) {
				if c.local {
					return
				}
				c.wantVerdict(flags, action, verdict)
				c.wantNoForwardEntry()
				c.handshake() // and nothing is in the way of a new one
				c.goOn()
			})
		})
	}
}

func (c *conversation) wantNoForwardEntry() {
	c.t.Helper()
	if f, ok := c.lookup(c.forwardKey()); ok {
		c.t.Fatalf("there is a flow %s: %+v", c.forwardKey(), f)
	}
}
