package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// Which devices packets leave by.

func putDevice(t *testing.T, r *rig.Rig, ifindex uint32, d maps.Device) {
	t.Helper()
	second := rig.SecondDevice()
	d.Away, d.SNAT4, d.SNAT6 = true, second.SNAT4, second.SNAT6
	if err := r.Set.Devices().Put(ifindex, d); err != nil {
		t.Fatal(err)
	}
}

// In both directions: the backends are behind the second device, the clients
// behind the first.
func TestXDPSendsByAnotherDeviceOnlyWhereItMay(t *testing.T) {
	t.Parallel()
	devices := map[string]struct {
		device maps.Device
		known  bool
		sends  bool
	}{
		"unknown":     {},
		"not allowed": {known: true},
		"allowed":     {known: true, device: maps.Device{XDPTx: true}, sends: true},
	}
	r := lend(t)
	for name, d := range devices {
		t.Run(name, func(t *testing.T) {
			everyRemote(t, r, secondNet, func(c *conversation) {
				if d.known {
					putDevice(c.t, r, r.World.Second, d.device)
				}
				if c.onXDP() && !d.sends {
					for range 2 {
						wantOutcome(c.t, c.run(c.hook, c.first()), rig.Pass, maps.VerdictLeftToTC)
					}
					return
				}
				c.begin()
				for range 2 {
					c.forward(packet.ACK, "x")
				}
			})
		})
	}
}

// Once it knows the way TC writes the MAC addresses itself.
func TestTCRemembersTheWayForATick(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for name, network := range map[string]string{"uplink": "2", "second": secondNet} {
		t.Run(name, func(t *testing.T) {
			everyRemote(t, r, network, func(c *conversation) {
				if c.onXDP() {
					return
				}
				c.begin()
				in := c.spec(c.f.client, c.f.vip, packet.ACK, "x")
				want := in
				want.Src, want.Dst, want.TTL = c.reverseKey().Dst, c.backend, routedTTL(in)
				want.SrcMAC, want.DstMAC = rig.NodeMAC, rig.OtherMAC
				got := c.run(c.hook, in)
				for before := tick(c.t, r) - 1; before != tick(c.t, r); { // until both fall into one
					before = tick(c.t, r)
					c.forwardSpec(in)
					got = c.run(c.hook, in)
				}
				c.checkMACs(got, want, rig.Sent, maps.VerdictToRemote, true)
			})
		})
	}
}

// The rig's second device stands in for a VLAN device above the uplink.
func vlanDevice(r *rig.Rig) maps.Device {
	return maps.Device{Lower: r.World.Uplink, VLAN: rig.VLAN, XDPTx: true}
}

func TestXDPSendsByAVLANDeviceWithItsTag(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRemote(t, r, secondNet, func(c *conversation) {
		if !c.onXDP() {
			return
		}
		putDevice(c.t, r, r.World.Second, vlanDevice(r))
		c.vlans = []uint16{rig.VLAN}
		c.forward(opening(c.proto), "")
		c.forward(opening(c.proto), "")
		if c.proto == maps.UDP {
			c.forward(0, "by the way that is remembered")
		}
	})
}

func TestXDPSendsNothingByTheWrongVLAN(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		vlans   []uint16
		network string
		device  func(r *rig.Rig) maps.Device
	}{
		"no tag": {nil, secondNet, vlanDevice},
		"a tag, but none on the way": {[]uint16{rig.VLAN}, secondNet, func(*rig.Rig) maps.Device {
			return maps.Device{XDPTx: true}
		}},
		"a tag, but the way back is by the uplink": {[]uint16{rig.VLAN}, "2", vlanDevice},
		"above another device": {[]uint16{rig.VLAN}, secondNet, func(r *rig.Rig) maps.Device {
			return maps.Device{Lower: r.World.Second, VLAN: rig.VLAN, XDPTx: true}
		}},
		"not allowed": {[]uint16{rig.VLAN}, secondNet, func(r *rig.Rig) maps.Device {
			return maps.Device{Lower: r.World.Uplink, VLAN: rig.VLAN}
		}},
	}
	r := lend(t)
	for name, w := range cases {
		t.Run(name, func(t *testing.T) {
			everyRemote(t, r, w.network, func(c *conversation) {
				if !c.onXDP() {
					return
				}
				putDevice(c.t, r, r.World.Second, w.device(r))
				c.vlans = w.vlans
				for range 2 {
					wantOutcome(c.t, c.run(c.hook, c.first()), rig.Pass, maps.VerdictLeftToTC)
				}
			})
		})
	}
}

// What is remembered of the way of tagged packets is of no use to others.
func TestAFlowsPacketsWithAnotherTagDoNotFollowTheRememberedWay(t *testing.T) {
	t.Parallel()
	tags := map[string]struct {
		network      string
		known, other []uint16
	}{
		"tagged, then none": {secondNet, []uint16{rig.VLAN}, nil},
		"none, then tagged": {"2", nil, []uint16{rig.VLAN}},
	}
	r := lend(t)
	for name, tag := range tags {
		t.Run(name, func(t *testing.T) {
			everyRemote(t, r, tag.network, func(c *conversation) {
				if !c.onXDP() || c.proto != maps.UDP {
					return
				}
				putDevice(c.t, r, r.World.Second, vlanDevice(r))
				c.vlans = tag.known
				c.forward(0, "first")
				c.forward(0, "second")
				c.vlans = tag.other
				wantOutcome(c.t, c.run(c.hook, c.first()), rig.Pass, maps.VerdictLeftToTC)
			})
		})
	}
}
