package loader

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
)

var (
	oneMAC   = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	otherMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

func putNeighbour(t *testing.T, dev netlink.Link, addr netip.Addr, mac net.HardwareAddr, state, flags int) maps.NextHop {
	t.Helper()
	n := &netlink.Neigh{LinkIndex: dev.Attrs().Index, State: state, Flags: flags, IP: addr.AsSlice(), HardwareAddr: mac}
	must(t, "put neighbour", netlink.NeighSet(n))
	return maps.NextHop{Ifindex: uint32(dev.Attrs().Index), Addr: addr}
}

// neighbourOf returns what the kernel has of h.
func neighbourOf(t *testing.T, h maps.NextHop) (Neighbour, bool) {
	t.Helper()
	all, err := Neighbours()
	must(t, "list neighbours", err)
	i := slices.IndexFunc(all, func(n Neighbour) bool { return n.NextHop == h })
	if i < 0 {
		return Neighbour{}, false
	}
	return all[i], true
}

func newNeighbourNetns(t *testing.T) netlink.Link {
	t.Helper()
	newNetns(t)
	dev := addVeth(t, "up0")
	addAddr(t, dev, "192.0.2.1/24")
	addAddr(t, dev, "2001:db8::1/64")
	return dev
}

func TestAStaleNeighbourThatIsUsedIsAskedFor(t *testing.T) {
	dev := newNeighbourNetns(t)
	for _, addr := range []string{"192.0.2.7", "2001:db8::7"} {
		h := putNeighbour(t, dev, netip.MustParseAddr(addr), oneMAC, unix.NUD_STALE, 0)
		want := Neighbour{NextHop: h, MAC: oneMAC.String(), Valid: true, Stale: true}
		if n, _ := neighbourOf(t, h); n != want {
			t.Fatalf("%+v, want %+v", n, want)
		}
		must(t, "use", UseNeighbour(h))
		want.Stale = false // delay: the kernel asks soon
		if n, _ := neighbourOf(t, h); n != want {
			t.Errorf("used: %+v, want %+v", n, want)
		}
	}
}

func TestUsingANeighbourThatIsNotThereMakesNone(t *testing.T) {
	dev := newNeighbourNetns(t)
	for _, h := range []maps.NextHop{
		{Ifindex: uint32(dev.Attrs().Index), Addr: netip.MustParseAddr("192.0.2.9")},
		{Ifindex: uint32(dev.Attrs().Index), Addr: netip.MustParseAddr("2001:db8::9")},
		{Ifindex: 4711, Addr: netip.MustParseAddr("192.0.2.9")},
	} {
		must(t, "use", UseNeighbour(h))
		if n, ok := neighbourOf(t, h); ok {
			t.Errorf("there is %+v", n)
		}
	}
}

// What others keep must not be used: the kernel would take that for a wish to have it
// otherwise.
func TestNeighboursOthersKeepAreForeign(t *testing.T) {
	dev := newNeighbourNetns(t)
	for name, kept := range map[string]struct{ state, flags int }{
		"static":  {unix.NUD_PERMANENT, 0},
		"no ARP":  {unix.NUD_NOARP, 0},
		"learned": {unix.NUD_STALE, netlink.NTF_EXT_LEARNED},
	} {
		h := putNeighbour(t, dev, netip.MustParseAddr("192.0.2.7"), oneMAC, kept.state, kept.flags)
		if n, _ := neighbourOf(t, h); !n.Foreign || !n.Valid {
			t.Errorf("%s: %+v", name, n)
		}
	}
}

// startRouteNews runs WatchRoutes in the network namespace of the calling thread.
func startRouteNews(t *testing.T) <-chan RouteNews {
	t.Helper()
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, "open namespace", err)
	news, done := make(chan RouteNews, 1000), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer unix.Close(ns)
		runtime.LockOSThread() // never unlocked: the thread stays in the namespace
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- WatchRoutes(ctx, func(n RouteNews) { news <- n })
	}()
	t.Cleanup(func() {
		cancel()
		must(t, "watch", <-done)
	})
	awaitNews(t, "the subscription", news, func(n RouteNews) bool { return !n.Changed })
	return news
}

// awaitNews waits for news that are what is wanted.
func awaitNews(t *testing.T, what string, news <-chan RouteNews, want func(RouteNews) bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case n := <-news:
			if want(n) {
				return
			}
		case <-deadline:
			t.Fatalf("no news of %s", what)
		}
	}
}

func TestChangesOfRoutesAndNeighboursAreNews(t *testing.T) {
	dev := newNeighbourNetns(t)
	news := startRouteNews(t)
	changed := func(n RouteNews) bool { return n.Changed && !n.Multipath }

	addRoute(t, dev, "198.51.100.0/24")
	awaitNews(t, "a route", news, changed)
	rule := netlink.NewRule()
	rule.Priority, rule.Table = 100, 100
	must(t, "add rule", netlink.RuleAdd(rule))
	awaitNews(t, "a rule", news, changed)
	must(t, "set MTU", netlink.LinkSetMTU(dev, 1400))
	awaitNews(t, "an MTU", news, changed)
	addAddr(t, dev, "192.0.2.2/24")
	awaitNews(t, "an address", news, changed)

	addr := netip.MustParseAddr("192.0.2.7")
	for _, mac := range []net.HardwareAddr{oneMAC, otherMAC} {
		h := putNeighbour(t, dev, addr, mac, unix.NUD_REACHABLE, 0)
		want := Neighbour{NextHop: h, MAC: mac.String(), Valid: true}
		awaitNews(t, "a neighbour's MAC", news, func(n RouteNews) bool { return slices.Contains(n.Neighbours, want) })
	}
	must(t, "delete neighbour", netlink.NeighDel(&netlink.Neigh{LinkIndex: dev.Attrs().Index, IP: addr.AsSlice()}))
	awaitNews(t, "a neighbour that is gone", news, func(n RouteNews) bool {
		return slices.ContainsFunc(n.Neighbours, func(n Neighbour) bool { return n.Addr == addr && !n.Valid })
	})
}

func TestRoutesWithSeveralPathsAreFound(t *testing.T) {
	dev := newNeighbourNetns(t)
	addRoute(t, dev, "203.0.113.0/24")
	news := startRouteNews(t)
	for _, paths := range []struct{ dst, one, other string }{
		{"198.51.100.0/24", "192.0.2.7", "192.0.2.8"}, {"2001:db8:1::/64", "2001:db8::7", "2001:db8::8"},
	} {
		if found, err := AnyMultipath(); err != nil || found {
			t.Fatalf("before: %t, %v", found, err)
		}
		_, dst, err := net.ParseCIDR(paths.dst)
		must(t, "parse", err)
		r := &netlink.Route{Dst: dst, Table: 99, MultiPath: []*netlink.NexthopInfo{
			{LinkIndex: dev.Attrs().Index, Gw: net.ParseIP(paths.one)}, {LinkIndex: dev.Attrs().Index, Gw: net.ParseIP(paths.other)},
		}}
		must(t, "add route", netlink.RouteAdd(r))
		awaitNews(t, "several paths", news, func(n RouteNews) bool { return n.Changed && n.Multipath })
		if found, err := AnyMultipath(); err != nil || !found {
			t.Errorf("%s: %t, %v", paths.dst, found, err)
		}
		must(t, "delete route", netlink.RouteDel(r))
	}
}
