package sockets

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
)

// void takes what the node sends to services, or to addr, and answers nothing.
func (w *world) void(more ...netip.Addr) {
	w.Helper()
	to := []*net.IPNet{
		{IP: net.IPv4(10, 96, 0, 0), Mask: net.CIDRMask(16, 32)},
		{IP: net.ParseIP("fd00:10:96::"), Mask: net.CIDRMask(112, 128)},
	}
	for _, a := range more {
		to = append(to, &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())})
	}
	err := w.node.Do(func() error {
		// What is sent without ARP has the sender's own address: the other end drops it.
		dev := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "void"}, PeerName: "abyss"}
		if err := netlink.LinkAdd(dev); err != nil {
			return err
		}
		peer, err := netlink.LinkByName(dev.PeerName)
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetARPOff(dev), netlink.LinkSetUp(peer), netlink.LinkSetUp(dev)); err != nil {
			return err
		}
		for _, n := range to {
			if err := netlink.RouteReplace(&netlink.Route{Dst: n, LinkIndex: dev.Index}); err != nil {
				return fmt.Errorf("route to %s: %w", n, err)
			}
		}
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
}

// waiting is a socket that connects to a service that is not there.
type waiting struct {
	what string
	fd   int
}

// early connects sockets of every origin and kind.
func (w *world) early(n int) (all []waiting) {
	w.Helper()
	if _, err := w.client.Start(exec.Command("sleep", "infinity")); err != nil { // every pod has a process
		w.Fatal(err)
	}
	for origin, ns := range w.origins() {
		for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
			port := []uint16{httpPort, echoPort}[kind-1]
			for _, to := range []netip.AddrPort{at(n, port), at6(n, port)} {
				_, family := sockaddr(to)
				fd := w.rawSocket(ns, family, kind|unix.SOCK_NONBLOCK)
				w.Cleanup(func() { unix.Close(fd) })
				var want error
				if kind == unix.SOCK_STREAM {
					want = unix.EINPROGRESS
				}
				w.dialBy(fd, to, want)
				all = append(all, waiting{fmt.Sprint(origin, " to ", to), fd})
			}
		}
	}
	return all
}

// wantAborted waits until each of them is told.
func (w *world) wantAborted(all []waiting) {
	w.Helper()
	for _, s := range all {
		w.await(s.what+" to be told", func() error {
			got, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if err != nil {
				return err
			}
			if unix.Errno(got) != unix.ECONNABORTED {
				return fmt.Errorf("%w", unix.Errno(got))
			}
			return nil
		})
	}
}

func TestSocketsThatConnectedBeforeTheAgentWasThereAreClosed(t *testing.T) {
	w := newBareWorld(t)
	w.void()
	all := w.early(webN)
	w.begin()
	w.wantAborted(all)
	for _, ns := range w.origins() {
		w.reaches(ns, "udp", at(webN, echoPort).String(), "web-1", "web-2", "web-3")
	}
}

func TestSocketsThatConnectedBeforeTheServiceWasThereAreClosed(t *testing.T) {
	w := newWorld(t)
	w.void()
	all := w.early(95)
	w.write("late.yaml", service("late", 95, "", ""))
	w.publish("late", "web-1")
	w.wantAborted(all)
	t.Run("while the agent was away", func(t *testing.T) {
		w := w.in(t)
		w.killAgent()
		all := w.early(96)
		w.write("later.yaml", service("later", 96, "", ""))
		w.publish("later", "web-1")
		w.startAgent()
		w.wantAborted(all)
	})
}

// What works, or is none of the agent's business, is left alone.
func TestSocketsThatAreNotTooEarlyStay(t *testing.T) {
	w := newBareWorld(t)
	void := netip.MustParseAddr("10.96.7.7")
	w.void(void)
	if _, err := w.client.Start(exec.Command("sleep", "infinity")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.lab.Client.Start(exec.Command("sleep", "infinity")); err != nil {
		t.Fatal(err)
	}
	// Somebody else has the external IP, and answers.
	elsewhere := w.lab.Nodes[1]
	w.addAddress(elsewhere.NS, netip.MustParseAddr(externalIP))
	w.route(w.node.NS, netip.MustParseAddr(externalIP), elsewhere.Addr4)
	l, err := elsewhere.Listen(t.Context(), "tcp", netip.AddrPortFrom(netip.MustParseAddr(externalIP), httpPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	stay := map[string]int{}
	connect := func(what string, ns *lab.NS, kind int, to netip.AddrPort, want error) {
		_, family := sockaddr(to)
		fd := w.rawSocket(ns, family, kind)
		t.Cleanup(func() { unix.Close(fd) })
		w.dialBy(fd, to, want)
		stay[what] = fd
	}
	connect("an established connection", w.client.NS, unix.SOCK_STREAM, netip.AddrPortFrom(netip.MustParseAddr(externalIP), httpPort), nil)
	connect("a service in packet mode", w.client.NS, unix.SOCK_DGRAM, at(97, echoPort), nil)
	connect("another port", w.client.NS, unix.SOCK_DGRAM, at(webN, 9), nil)
	connect("another control group", w.lab.Client, unix.SOCK_DGRAM, at(webN, echoPort), nil)
	connect("a node port", w.node.NS, unix.SOCK_DGRAM, netip.AddrPortFrom(w.node.Addr4, echoNodePort), nil)
	connect("the pod itself", w.client.NS, unix.SOCK_DGRAM, netip.AddrPortFrom(w.pods["web-1"].Addr4, 5353), nil)
	told := w.rawSocket(w.client.NS, unix.AF_INET, unix.SOCK_DGRAM)
	t.Cleanup(func() { unix.Close(told) })
	w.dialBy(told, at(webN, echoPort), nil)
	w.write("packet.yaml", service("packet", 97, `, annotations: {ebb-lb.dev/east-west: packet}`, ""))
	w.publish("packet", "web-1")
	w.begin()
	w.sync("packet", at(97, echoPort).String()+"/UDP")
	w.wantAborted([]waiting{{"one that is too early", told}})
	time.Sleep(4 * time.Second) // sockets are looked through again for 3 s
	for what, fd := range stay {
		if got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || got != 0 {
			t.Errorf("%s: %v, %v", what, syscall.Errno(got), err)
		}
		if _, err := unix.Getpeername(fd); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func (w *world) route(ns *lab.NS, to, by netip.Addr) {
	w.Helper()
	err := ns.Do(func() error {
		return netlink.RouteReplace(&netlink.Route{Gw: by.AsSlice(), Dst: &net.IPNet{IP: to.AsSlice(), Mask: net.CIDRMask(32, 32)}})
	})
	if err != nil {
		w.Fatal(err)
	}
}
