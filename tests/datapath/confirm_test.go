package datapath

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/bpf"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// How long flows use the route they have looked up, and who has the kernel confirm
// neighbours.

// replacedMAC is what the other node has after it was replaced.
var replacedMAC = net.HardwareAddr{2, 0, 0, 0, 0, 0x99}

// replaceOther gives the other node of the world another MAC until the test ends.
func replaceOther(t *testing.T, r *rig.Rig) {
	t.Helper()
	set := func(mac net.HardwareAddr) error {
		return r.World.Do(func() error {
			for _, a := range []netip.Addr{rig.Other4, rig.Other6} {
				n := &netlink.Neigh{LinkIndex: int(r.World.Uplink), State: unix.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac}
				if err := netlink.NeighSet(n); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := set(replacedMAC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set(rig.OtherMAC); err != nil {
			t.Error(err)
		}
	})
}

// tell makes programs believe in an agent that saw routes change in tick changed,
// and will tell of more until tick until.
func tell(t *testing.T, r *rig.Rig, changed, until uint32) {
	t.Helper()
	if err := r.Set.Routes().Put(maps.RouteState{Changed: changed, Until: until}); err != nil {
		t.Fatal(err)
	}
}

// nextTick waits until a tick begins.
func nextTick(t *testing.T, r *rig.Rig) uint32 {
	t.Helper()
	poll := time.NewTicker(r.Clock.Tick() / 64)
	defer poll.Stop()
	for before := tick(t, r); ; <-poll.C {
		if now := tick(t, r); now != before {
			return now
		}
	}
}

// settle waits until the flow does not look its route up by itself for some ticks
// (route_stays in bpf/route/route.h).
func (c *conversation) settle(ticks uint32) {
	c.t.Helper()
	phase := uint32(c.snat ^ c.backend.Port())
	for maps.RouteTicks-(tick(c.t, c.r)+phase)%maps.RouteTicks <= ticks {
		nextTick(c.t, c.r)
	}
}

// silent makes the last packet of the client older, in ticks, and nothing else.
func (c *conversation) silent(ticks uint32) {
	c.t.Helper()
	wire := func(port uint16) uint16 { return port<<8 | port>>8 }
	k := c.forwardKey()
	key := bpf.LayoutFlowKey{
		Src: bpf.LayoutIpAddr{B: k.Src.Addr().As16()}, Sport: wire(k.Src.Port()),
		Dst: bpf.LayoutIpAddr{B: k.Dst.Addr().As16()}, Dport: wire(k.Dst.Port()), Proto: uint8(k.Proto),
	}
	m := c.r.Set.Replacements()[bpf.LayoutMapFlows]
	var f bpf.LayoutFlow
	if err := m.Lookup(&key, &f); err != nil {
		c.t.Fatal(err)
	}
	f.Seen -= ticks
	if err := m.Put(&key, &f); err != nil {
		c.t.Fatal(err)
	}
}

// wantNextHop checks where the flow's packets go. TC gives those that look their
// route up to the kernel, so it is the second that tells.
func (c *conversation) wantNextHop(what string, want net.HardwareAddr) {
	c.t.Helper()
	var got rig.Result
	for range 2 {
		got = c.run(c.hook, c.spec(c.f.client, c.f.vip, packet.ACK, "x"))
		wantOutcome(c.t, got, rig.Sent, maps.VerdictToRemote)
	}
	if mac := got.Frame[:6]; !bytes.Equal(mac, want) {
		c.t.Fatalf("%s: sent to %s, want %s", what, net.HardwareAddr(mac), want)
	}
}

// eachRoute runs fn for a flow in use to a remote backend, on each hook.
func eachRoute(t *testing.T, fn func(c *conversation)) {
	t.Helper()
	for i, hook := range ingressHooks {
		t.Run(hook.String(), func(t *testing.T) {
			t.Parallel()
			c := newConversation(t, lend(t), hook, families[i], maps.TCP, false).serve()
			c.handshake()
			fn(c)
		})
	}
}

func TestAChangeOfRoutesIsSeenInTheNextTick(t *testing.T) {
	t.Parallel()
	eachRoute(t, func(c *conversation) {
		c.settle(6)
		c.wantNextHop("at first", rig.OtherMAC)
		replaceOther(c.t, c.r)
		for range 2 {
			nextTick(c.t, c.r)
			c.wantNextHop("nobody has told", rig.OtherMAC)
		}
		now := tick(c.t, c.r)
		tell(c.t, c.r, now+1, now+100) // as the agent does
		nextTick(c.t, c.r)
		c.wantNextHop("told", replacedMAC)
	})
}

func TestRoutesAreLookedUpOnceATickWhenNobodyWatches(t *testing.T) {
	t.Parallel()
	eachRoute(t, func(c *conversation) {
		now := tick(c.t, c.r)
		tell(c.t, c.r, now-maps.RouteTicks, now-1)
		c.wantNextHop("at first", rig.OtherMAC)
		replaceOther(c.t, c.r)
		nextTick(c.t, c.r)
		c.wantNextHop("a tick later", replacedMAC)
	})
}

func TestARouteInUseIsLookedUpAgainAfterAWhile(t *testing.T) {
	t.Parallel()
	eachRoute(t, func(c *conversation) {
		c.wantNextHop("at first", rig.OtherMAC)
		replaceOther(c.t, c.r)
		now := tick(c.t, c.r)
		tell(c.t, c.r, now-4*maps.RouteTicks, now+100)
		c.silent(maps.RouteTicks)
		c.r.ForgetRoutes(c.t)
		c.wantNextHop("after so long", replacedMAC)
	})
}

// leftToTC reports what XDP does with a packet.
func (c *conversation) leftToTC(in packet.Spec) bool {
	c.t.Helper()
	c.r.ForgetRoutes(c.t)
	got := c.run(maps.HookXDP, in)
	if got.Verdict != maps.VerdictToRemote && got.Verdict != maps.VerdictLeftToTC {
		c.t.Fatalf("got %s", got.Verdict)
	}
	return got.Verdict == maps.VerdictLeftToTC
}

// probed makes the kernel have sent a packet to the other node so many ticks ago.
func probed(t *testing.T, r *rig.Rig, ticks uint32) {
	t.Helper()
	now := tick(t, r)
	for _, a := range []netip.Addr{rig.Other4, rig.Other6} {
		h := maps.NextHop{Ifindex: r.World.Uplink, Addr: a}
		if err := r.Set.Neighbours().Put(h, maps.Neighbour{Used: now, Probed: now - ticks}); err != nil {
			t.Fatal(err)
		}
	}
}

// neighbourTicks is NEIGHBOUR_TICKS in bpf/route/fib.h.
const neighbourTicks = 16

// What nothing of its flow can overtake goes by the kernel's neighbour code, but
// only where no agent keeps neighbours fresh.
func TestXDPLeavesLonePacketsToTheKernelWhenNobodyWatches(t *testing.T) {
	t.Parallel()
	for _, f := range families {
		for _, proto := range protos {
			t.Run(f.name+"/"+proto.String(), func(t *testing.T) {
				t.Parallel()
				c := newConversation(t, lend(t), maps.HookXDP, f, proto, false).serve()
				c.begin()
				now := tick(t, c.r)
				data := c.spec(f.client, f.vip, packet.ACK, "x")
				other := c.spec(withPort(f.client, 50000), f.vip, opening(proto), "")
				check := func(what string, in packet.Spec, want bool) {
					t.Helper()
					if got := c.leftToTC(in); got != want {
						t.Errorf("%s: left to TC: %t, want %t", what, got, want)
					}
				}

				probed(t, c.r, neighbourTicks)
				check("a first packet, watched", other, false)
				tell(t, c.r, now-2*maps.RouteTicks, now-1)
				other = c.spec(withPort(f.client, 50001), f.vip, opening(proto), "")
				check("a first packet", other, true)
				c.silent(1)
				check("a packet among others", data, proto == maps.UDP)
				c.silent(10)
				check("a packet after a pause", data, true)
				if got := c.run(maps.HookTCIngress, other); got.Action != rig.Sent {
					t.Fatalf("TC: %s", got.Action)
				}
				c.silent(10)
				check("after TC has sent one", data, false)
				check("a first packet after TC has sent one", c.spec(withPort(f.client, 50002), f.vip, opening(proto), ""), false)
				probed(t, c.r, neighbourTicks-4)
				check("a little later", c.spec(withPort(f.client, 50003), f.vip, opening(proto), ""), false)
			})
		}
	}
}

// An answer may be the only packet that goes to a gateway.
func TestXDPLeavesTheFirstAnswerToTheKernelWhenNobodyWatches(t *testing.T) {
	t.Parallel()
	c := newConversation(t, lend(t), maps.HookXDP, families[0], maps.TCP, false).serve()
	c.forward(packet.SYN, "")
	now := tick(t, c.r)
	tell(t, c.r, now-2*maps.RouteTicks, now-1)
	answer := c.replyOf(packet.SYN|packet.ACK, "")
	wantOutcome(t, c.run(maps.HookXDP, answer), rig.Pass, maps.VerdictLeftToTC)
	wantOutcome(t, c.run(maps.HookTCIngress, answer), rig.Sent, maps.VerdictReplyRemote)
	wantOutcome(t, c.run(maps.HookXDP, answer), rig.Sent, maps.VerdictReplyRemote)
	c.forward(packet.ACK, "")
	probed(t, c.r, neighbourTicks)
	if !c.leftToTC(c.spec(withPort(c.f.client, 50000), c.f.vip, packet.SYN, "")) {
		t.Error("a SYN is not left to TC")
	}
}

func TestNextHopsInUseAreNoted(t *testing.T) {
	t.Parallel()
	eachRoute(t, func(c *conversation) {
		c.reply(packet.ACK, "y")
		noted := make(map[netip.Addr]bool)
		err := c.r.Set.Neighbours().Each(func(h maps.NextHop, n maps.Neighbour) bool {
			noted[h.Addr] = h.Ifindex == c.r.World.Uplink && tick(c.t, c.r)-n.Used <= 2
			return true
		})
		if err != nil {
			c.t.Fatal(err)
		}
		backend, client := rig.Other4, rig.Gateway4
		if c.f.client.Addr().Is6() {
			backend, client = rig.Other6, rig.Gateway6
		}
		if len(noted) != 2 || !noted[backend] || !noted[client] {
			c.t.Fatalf("noted %v, want %s and %s", noted, backend, client)
		}
	})
}

// addPaths gives the world a route with two paths, chosen by ports.
func addPaths(t *testing.T, r *rig.Rig) netip.AddrPort {
	t.Helper()
	_, dst, err := net.ParseCIDR("10.244.11.0/24")
	if err != nil {
		t.Fatal(err)
	}
	route := &netlink.Route{Dst: dst, MultiPath: []*netlink.NexthopInfo{
		{LinkIndex: int(r.World.Uplink), Gw: rig.Other4.AsSlice()}, {LinkIndex: int(r.World.Uplink), Gw: rig.Gateway4.AsSlice()},
	}}
	err = r.World.Do(func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/fib_multipath_hash_policy", []byte("1"), 0); err != nil {
			return err
		}
		return netlink.RouteAdd(route)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.World.Do(func() error { return netlink.RouteDel(route) }); err != nil {
			t.Error(err)
		}
	})
	return netip.MustParseAddrPort("10.244.11.7:8080")
}

func TestFlowsStayOnThePathTheyHaveBegunOn(t *testing.T) {
	t.Parallel()
	r := lend(t)
	backend := addPaths(t, r)
	now := tick(t, r)
	if err := r.Set.Routes().Put(maps.RouteState{Changed: now - maps.RouteTicks, Until: now + 100, Multipath: true}); err != nil {
		t.Fatal(err)
	}
	c := newConversation(t, r, maps.HookXDP, families[0], maps.TCP, false)
	c.backend = backend
	c.serve()
	paths := make(map[string]int)
	for i := range uint16(32) {
		c.f, c.snat = withClient(c.f, 45000+i), 0
		first := c.run(c.hook, c.first())
		c.snat = sourcePort(t, first.Frame, c.first())
		c.run(c.hook, c.replyOf(packet.SYN|packet.ACK, ""))
		paths[string(first.Frame[:6])]++
		for _, payload := range []string{"", "x", "y"} {
			got := c.run(c.hook, c.spec(c.f.client, c.f.vip, packet.ACK, payload))
			wantOutcome(t, got, rig.Sent, maps.VerdictToRemote)
			if !bytes.Equal(got.Frame[:6], first.Frame[:6]) {
				t.Fatalf("flow %d: the SYN went to %x, what follows to %x", i, first.Frame[:6], got.Frame[:6])
			}
		}
	}
	if len(paths) != 2 {
		t.Fatalf("32 flows took %d paths, want 2", len(paths))
	}
}
