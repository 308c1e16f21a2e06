package sockets

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

func TestNodePortsAreOnEveryAddressOfTheNode(t *testing.T) {
	w := newWorld(t)
	secondary := netip.MustParseAddr("172.31.7.7")
	w.addAddress(w.node.NS, secondary)
	addrs := map[string]netip.Addr{"v4": w.node.Addr4, "v6": w.node.Addr6, "another one": secondary}
	for origin, ns := range w.origins() {
		for name, addr := range addrs {
			t.Run(origin+" to "+name, func(t *testing.T) { w.in(t).reachesNodePort(ns, addr) })
		}
	}
}

func (w *world) reachesNodePort(ns *lab.NS, addr netip.Addr) {
	w.Helper()
	all := []string{"web-1", "web-2", "web-3"}
	w.reaches(ns, "tcp", netip.AddrPortFrom(addr, httpNodePort).String(), all...)
	w.reaches(ns, "udp", netip.AddrPortFrom(addr, echoNodePort).String(), all...)
}

func TestNodePortsAreOnLoopbackForTheNodeOnly(t *testing.T) {
	w := newWorld(t)
	for _, addr := range []string{"127.0.0.1", "127.1.2.3", "::1"} {
		t.Run(addr, func(t *testing.T) {
			w := w.in(t)
			a := netip.MustParseAddr(addr)
			w.reachesNodePort(w.node.NS, a)
			at := netip.AddrPortFrom(a, httpNodePort).String()
			if _, err := answering(t.Context(), w.client.NS, "tcp", at); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("a pod's own loopback: %v", err)
			}
		})
	}
}

func TestNodePortsOfAnotherNodeAreThatNodes(t *testing.T) {
	w := newWorld(t)
	other := w.lab.Nodes[1]
	suite.ServePod(w, other.NS, "other", httpNodePort, echoNodePort)
	for origin, ns := range w.origins() {
		t.Run(origin, func(t *testing.T) {
			w := w.in(t)
			w.reaches(ns, "tcp", netip.AddrPortFrom(other.Addr4, httpNodePort).String(), "other")
			w.reaches(ns, "tcp", netip.AddrPortFrom(other.Addr6, httpNodePort).String(), "other")
		})
	}
}

func TestNodePortsWithRangesAreOnTheseAddressesOnly(t *testing.T) {
	w := newBareWorld(t)
	w.begin("--nodeport-addresses", w.node.Addr4.String()+"/32")
	secondary := netip.MustParseAddr("172.31.7.7")
	w.addAddress(w.node.NS, secondary)
	for origin, ns := range w.origins() {
		t.Run(origin, func(t *testing.T) {
			w := w.in(t)
			w.reaches(ns, "tcp", netip.AddrPortFrom(w.node.Addr4, httpNodePort).String(), "web-1", "web-2", "web-3")
			for _, addr := range []netip.Addr{secondary, netip.MustParseAddr("127.0.0.1")} {
				at := netip.AddrPortFrom(addr, httpNodePort).String()
				if _, err := answering(t.Context(), ns, "tcp", at); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("%s: %v", at, err)
				}
			}
		})
	}
}
