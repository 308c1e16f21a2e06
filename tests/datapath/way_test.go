package datapath

import (
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/rig"
)

// Routes decide whether a backend is here, whatever the API says of its node.

// everyWay runs fn for a service whose backend the API says to be here, and elsewhere.
func everyWay(t *testing.T, r *rig.Rig, backend func(f family) netip.AddrPort, fn func(c *conversation)) {
	t.Helper()
	for _, said := range []bool{true, false} {
		name := map[bool]string{true: "said to be here", false: "said to be elsewhere"}[said]
		t.Run(name, func(t *testing.T) {
			everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
				if local || hook == maps.HookPodIngress {
					return
				}
				c := newConversation(t, r, hook, f, proto, said)
				c.backend = backend(f)
				fn(c.serve())
			})
		})
	}
}

// routed makes c one with a backend that is here, or elsewhere, as it turned out.
func (c *conversation) routed(local bool) *conversation {
	c.local = local
	return c
}

func TestABackendIsHereIfItsRouteLeadsToNoDeviceWithPrograms(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyWay(t, r, func(f family) netip.AddrPort { return f.local }, func(c *conversation) {
		c.routed(true).begin()
		c.goOn()
	})
}

func TestABackendIsElsewhereIfItsRouteLeadsToAnUplink(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyWay(t, r, func(f family) netip.AddrPort { return f.remote }, func(c *conversation) {
		c.routed(false).begin()
		c.goOn()
	})
}

func TestAnAddressOfTheNodeIsHere(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyWay(t, r, func(f family) netip.AddrPort { return withAddr(f.local, f.node) }, func(c *conversation) {
		c.routed(true).begin()
		c.goOn()
	})
}

// Where pods of this node may be behind a device as well as other machines, what the API
// says of a backend's node has to do.
func TestBehindADeviceOfBothKindsTheAPITells(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyWay(t, r, func(f family) netip.AddrPort { return f.remote }, func(c *conversation) {
		uplink := rig.UplinkDevice()
		uplink.Away = false
		if err := r.Set.Devices().Put(r.World.Uplink, uplink); err != nil {
			c.t.Fatal(err)
		}
		c.begin()
		c.goOn()
	})
}

// The source is an address of the device by which packets leave.
func TestFlowsHaveTheSourceOfTheDeviceTheyLeaveBy(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for name, d := range map[string]maps.Device{
		"its own":    {Away: true, SNAT4: netip.MustParseAddr("192.168.6.99"), SNAT6: netip.MustParseAddr("fd00:168:6::99")},
		"the node's": {Away: true},
	} {
		t.Run(name, func(t *testing.T) {
			everyRemote(t, r, secondNet, func(c *conversation) {
				if err := r.Set.Devices().Put(r.World.Second, d); err != nil {
					t.Fatal(err)
				}
				v4 := c.f.client.Addr().Is4()
				own := map[bool]netip.Addr{true: d.SNAT4, false: d.SNAT6}[v4]
				if c.f.node = own; !own.IsValid() {
					c.f.node = map[bool]netip.Addr{true: rig.Node4, false: rig.Node6}[v4]
				}
				if c.onXDP() { // which may not send by this device
					wantOutcome(c.t, c.run(c.hook, c.first()), rig.Pass, maps.VerdictLeftToTC)
					return
				}
				c.begin()
				c.goOn()
			})
		})
	}
}

// What has begun keeps its source; what begins from now on has the new one.
func TestASourceThatChangesIsForNewFlows(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRemote(t, r, "", func(c *conversation) {
		c.begin()
		d := maps.Device{Away: true, SNAT4: netip.MustParseAddr("198.51.100.99"), SNAT6: netip.MustParseAddr("2001:db8:51::99")}
		if err := r.Set.Devices().Put(r.World.Uplink, d); err != nil {
			c.t.Fatal(err)
		}
		c.r.ForgetRoutes(c.t)
		c.goOn()
		next := c.unique()
		if next.f.node = d.SNAT4; c.f.client.Addr().Is6() {
			next.f.node = d.SNAT6
		}
		next.begin()
		next.goOn()
		c.goOn()
	})
}

// By a device that is no uplink answers come in, but nothing begins.
func TestNothingBeginsAtADeviceForAnswers(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRemote(t, r, "", func(c *conversation) {
		if c.onXDP() { // never there
			return
		}
		c.begin()
		uplink := rig.UplinkDevice()
		uplink.Answers = true
		if err := r.Set.Devices().Put(r.World.Uplink, uplink); err != nil {
			c.t.Fatal(err)
		}
		c.goOn()
		next := c.unique()
		wantOutcome(c.t, c.run(c.hook, next.first()), rig.Pass, maps.VerdictNotService)
	})
}

// A flow stays where it has begun, others begin where the route leads to now.
func TestAFlowStaysWhereItHasBegun(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRemote(t, r, "", func(c *conversation) {
		c.begin()
		uplink := rig.UplinkDevice()
		uplink.Away = false // as if the route led to pods
		if err := r.Set.Devices().Put(r.World.Uplink, uplink); err != nil {
			c.t.Fatal(err)
		}
		c.putBackend(func(b *maps.Backend) { b.Local = true })
		c.goOn()
		r.ForgetRoutes(c.t)
		c.unique().routed(true).forward(opening(c.proto), "")
		c.goOn()
	})
}

// A first packet larger than the link of its pod goes the way of the others: whoever
// routes it cuts it, or tells.
func TestTheLengthOfAPacketDoesNotDecideWhereItsBackendIs(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyWay(t, r, func(f family) netip.AddrPort { return f.local }, func(c *conversation) {
		if c.proto != maps.UDP || c.onXDP() {
			return
		}
		in := c.first()
		in.Payload = make([]byte, 1600)
		wantOutcome(c.t, c.run(c.hook, in), rig.Pass, maps.VerdictToLocal)
	})
}
