package lab

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// newTestLab builds a lab that is closed when the test ends.
func newTestLab(t *testing.T, cfg Config) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: creates network namespaces")
	}
	l, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func addTestPod(t *testing.T, n *Node, name string) *Pod {
	t.Helper()
	p, err := n.AddPod(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestBoxesReachEachOther(t *testing.T) {
	for _, cfg := range []struct {
		name string
		Config
	}{
		{"with offloads as the kernel has them", Config{}},
		{"with links fit for native XDP", Config{
			UplinkPeer: NativeXDPPeer(), NodeUplink: NativeXDPPeer(),
			PodLink: NativeXDPPeer(), PodPeer: NativeXDPPeer(), ClientLink: NativeXDPPeer(),
		}},
	} {
		t.Run(cfg.name, func(t *testing.T) {
			l := newTestLab(t, cfg.Config)
			checkReachability(t, l)
		})
	}
}

func checkReachability(t *testing.T, l *Lab) {
	a, b := l.Node("node-a"), l.Node("node-b")
	podA, podA2, podB := addTestPod(t, a, "podA"), addTestPod(t, a, "podA2"), addTestPod(t, b, "podB")
	client4, client6 := ClientAddrs()
	tests := []struct {
		name     string
		from, to *NS
		v4, v6   netip.Addr
	}{
		{"client reaches node", l.Client, a.NS, a.Addr4, a.Addr6},
		{"node reaches client", b.NS, l.Client, client4, client6},
		{"node reaches node", a.NS, b.NS, b.Addr4, b.Addr6},
		{"node reaches its pod", a.NS, podA.NS, podA.Addr4, podA.Addr6},
		{"node reaches a pod of another node", a.NS, podB.NS, podB.Addr4, podB.Addr6},
		{"pod reaches its node", podA.NS, a.NS, a.Addr4, a.Addr6},
		{"pod reaches a pod beside it", podA.NS, podA2.NS, podA2.Addr4, podA2.Addr6},
		{"pod reaches a pod on another node", podA.NS, podB.NS, podB.Addr4, podB.Addr6},
	}
	for _, tc := range tests {
		for _, addr := range []netip.Addr{tc.v4, tc.v6} {
			for _, network := range []string{"tcp", "udp"} {
				if err := exchange(t.Context(), tc.from, tc.to, network, addr); err != nil {
					t.Errorf("%s at %s over %s: %v", tc.name, addr, network, err)
				}
			}
		}
	}
}

// exchange sends a message from one namespace to an address of another, has it
// echoed, and checks it. 100 kB of TCP make sure that large segments pass.
func exchange(ctx context.Context, from, to *NS, network string, addr netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	port, stop, err := echo(ctx, to, network, addr)
	if err != nil {
		return err
	}
	defer stop()
	conn, err := from.Dial(ctx, network, netip.AddrPortFrom(addr, port).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	size := 1200
	if network == "tcp" {
		size = 100_000
	}
	return roundTrip(ctx, conn, size)
}

func roundTrip(ctx context.Context, conn net.Conn, size int) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	sent := make([]byte, size)
	for i := range sent {
		sent[i] = byte(i * 7)
	}
	writeErr := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		writeErr <- err
	}()
	got := make([]byte, size)
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != string(sent) {
		return errors.New("the echo differs from what was sent")
	}
	return <-writeErr
}

// echo serves one client inside ns and returns the port it listens on.
func echo(ctx context.Context, ns *NS, network string, addr netip.Addr) (uint16, func(), error) {
	at := netip.AddrPortFrom(addr, 0).String()
	if network == "udp" {
		c, err := ns.ListenPacket(ctx, network, at)
		if err != nil {
			return 0, nil, err
		}
		go echoDatagrams(c)
		return c.LocalAddr().(*net.UDPAddr).AddrPort().Port(), func() { c.Close() }, nil
	}
	l, err := ns.Listen(ctx, network, at)
	if err != nil {
		return 0, nil, err
	}
	go echoStream(l)
	return l.Addr().(*net.TCPAddr).AddrPort().Port(), func() { l.Close() }, nil
}

func echoStream(l net.Listener) {
	conn, err := l.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.Copy(conn, conn)
}

func echoDatagrams(c net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(buf[:n], from)
	}
}

func TestClientDoesNotReachPodsDirectly(t *testing.T) {
	l := newTestLab(t, Config{Nodes: []string{"n"}})
	pod := addTestPod(t, l.Node("n"), "pod")
	for _, addr := range []netip.Addr{pod.Addr4, pod.Addr6} {
		err := exchange(t.Context(), l.Client, pod.NS, "tcp", addr)
		if err == nil {
			t.Errorf("the client reached %s: the router must not know pod addresses", addr)
		}
	}
}

func TestRouterSendsVirtualAddressesToOneNode(t *testing.T) {
	l := newTestLab(t, Config{})
	vip4, vip6 := DefaultVIPs()
	for _, name := range []string{"node-a", "node-b"} {
		n := l.Node(name)
		err := n.Do(func() error {
			return errors.Join(addAddr("lo", hostPrefix(vip4)), addAddr("lo", hostPrefix(vip6)))
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.RouteVIPs(name); err != nil {
			t.Fatal(err)
		}
		for _, vip := range []netip.Addr{vip4, vip6} {
			if err := exchange(t.Context(), l.Client, n.NS, "tcp", vip); err != nil {
				t.Errorf("%s at %s: %v", vip, name, err)
			}
		}
	}
	if err := l.RouteVIPs("nodeC"); err == nil {
		t.Error("routing to a node that does not exist succeeded")
	}
}

func TestConfigThatCannotWorkIsRefused(t *testing.T) {
	tests := []struct {
		name string
		cfg  Config
	}{
		{"the same node twice", Config{Nodes: []string{"a", "a"}}},
		{"a node name too long for a device", Config{Nodes: []string{"a-rather-long-name"}}},
		{"virtual addresses at an unknown node", Config{VIPNode: "nodeX"}},
		{"an MTU too small for IPv6", Config{MTU: 1000}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if l, err := New(t.Context(), tc.cfg); err == nil {
				t.Errorf("accepted %+v", tc.cfg)
				l.Close()
			}
		})
	}
}
