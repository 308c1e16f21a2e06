package pathmtu

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// IPsec between nodes, as strongSwan or Libreswan set it up: what the entry node sends to
// pods of the second one goes by a tunnel, and what they answer. The second node's
// kernel takes nothing else, and nobody knows how much the tunnel adds.

// tunnel is one of the two directions.
type tunnel struct {
	from, to *lab.Node
	family   string
	src, dst netip.Prefix // of what is encrypted
	spi      int
}

// tunnels are those of both families, to the second node and back.
func (w *world) tunnels() []tunnel {
	first, second := w.entry, w.lab.Nodes[1]
	return []tunnel{
		{first, second, "ipv4", host(first.Addr4), second.PodCIDR4, 1},
		{second, first, "ipv4", second.PodCIDR4, host(first.Addr4), 2},
		{first, second, "ipv6", host(first.Addr6), second.PodCIDR6, 3},
		{second, first, "ipv6", second.PodCIDR6, host(first.Addr6), 4},
	}
}

// ends are the addresses of the nodes between which it is.
func (t tunnel) ends() (from, to net.IP) {
	if t.family == "ipv4" {
		return t.from.Addr4.AsSlice(), t.to.Addr4.AsSlice()
	}
	return t.from.Addr6.AsSlice(), t.to.Addr6.AsSlice()
}

func (t tunnel) policy(dir netlink.Dir) *netlink.XfrmPolicy {
	from, to := t.ends()
	return &netlink.XfrmPolicy{Src: ipNet(t.src), Dst: ipNet(t.dst), Dir: dir, Tmpls: []netlink.XfrmPolicyTmpl{{
		Src: from, Dst: to, Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Reqid: t.spi,
	}}}
}

// state has the key.
func (t tunnel) state() *netlink.XfrmState {
	from, to := t.ends()
	return &netlink.XfrmState{
		Src: from, Dst: to, Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Spi: t.spi, Reqid: t.spi,
		Aead: &netlink.XfrmStateAlgo{Name: "rfc4106(gcm(aes))", Key: []byte("twenty bytes of keys"), ICVLen: 128},
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// secure sets up the policies of both ends.
func (w *world) secure() {
	w.Helper()
	for _, t := range w.tunnels() {
		w.on(t.from, func() error { return netlink.XfrmPolicyAdd(t.policy(netlink.XFRM_DIR_OUT)) })
		w.on(t.to, func() error {
			return errors.Join(netlink.XfrmPolicyAdd(t.policy(netlink.XFRM_DIR_IN)), netlink.XfrmPolicyAdd(t.policy(netlink.XFRM_DIR_FWD)))
		})
	}
}

// giveKeys makes the nodes able to encrypt.
func (w *world) giveKeys() {
	w.Helper()
	for _, t := range w.tunnels() {
		for _, n := range []*lab.Node{t.from, t.to} {
			err := n.Do(func() error { return netlink.XfrmStateAdd(t.state()) })
			if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ENOSYS) {
				w.Skipf("missing feature: ESP: %v", err)
			}
			if err != nil {
				w.Fatal(err)
			}
		}
	}
}

func (w *world) on(n *lab.Node, do func() error) {
	w.Helper()
	if err := n.Do(do); err != nil {
		w.Fatal(err)
	}
}

// awaitSecured waits until the agent has noticed the policies, or that they are gone,
// and flows look for their way anew.
func (w *world) awaitSecured(want bool) {
	w.Helper()
	const file = "/proc/sys/net/ipv4/conf/lo/accept_local"
	for end := time.Now().Add(patience); ; time.Sleep(lookEvery) {
		var text []byte
		w.on(w.entry, func() (err error) {
			text, err = os.ReadFile(file)
			return err
		})
		if (strings.TrimSpace(string(text)) == "1") == want {
			break
		}
		if time.Now().After(end) {
			w.Fatalf("%s is %q\n%s", file, text, w.said)
		}
	}
	time.Sleep(3 * time.Second) // ticks
}

// Kernels without ESP, and nodes that have not agreed on keys yet, send nothing. Nor
// does ebb: not what has begun before, and not what begins.
func TestWhatIPsecWouldEncryptIsNotSentInClear(t *testing.T) {
	for _, xdp := range modes() {
		t.Run(xdp, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, xdp)
			var open []net.Conn
			for family, addr := range w.remote.addrs() {
				conn, err := w.dial("udp", addr, ports()["echo"])
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				open = append(open, conn)
				if err := echoed(conn); err != nil {
					t.Fatalf("%s, before: %v", family, err)
				}
			}
			for _, tun := range w.tunnels() {
				if tun.from == w.entry {
					w.on(w.entry, func() error { return netlink.XfrmPolicyAdd(tun.policy(netlink.XFRM_DIR_OUT)) })
				}
			}
			w.awaitSecured(true)
			before := w.heard(w.remote.pod)
			for _, conn := range open {
				_, _ = conn.Write([]byte("in clear?"))
			}
			for _, addr := range w.remote.addrs() {
				_ = w.exchange(addr, 100, 2*time.Second)
				_ = w.exchange(addr, 8000, time.Second)
				w.wantNoConnection(addr)
			}
			if n := w.heard(w.remote.pod) - before; n != 0 {
				t.Errorf("the pod heard %d packets in clear", n)
			}
			w.on(w.entry, func() error { return netlink.XfrmPolicyFlush() })
			w.awaitSecured(false)
			for _, conn := range open {
				if err := echoed(conn); err != nil {
					t.Errorf("%s, when the policies are gone: %v", conn.RemoteAddr(), err)
				}
			}
			if t.Failed() {
				t.Logf("agent:\n%s", w.said)
			}
		})
	}
}

// wantNoConnection tries longer than it takes to repeat a SYN.
func (w *world) wantNoConnection(addr netip.Addr) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 2*time.Second)
	defer cancel()
	conn, err := w.lab.Client.Dial(ctx, "tcp", netip.AddrPortFrom(addr, ports()["sink"].service).String())
	if err == nil {
		w.Errorf("connected to %s", addr)
		conn.Close()
	}
}

// echoed sends datagrams until one comes back.
func echoed(conn net.Conn) error {
	var err error
	for range 5 {
		if _, err = conn.Write([]byte("hello")); err != nil {
			continue
		}
		if err = conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		if _, err = conn.Read(make([]byte, 16)); err == nil {
			return nil
		}
	}
	return err
}

// heard counts the datagrams and segments that a pod's stack was given.
func (w *world) heard(p *lab.Pod) (n int) {
	w.Helper()
	for _, c := range [][2]string{{"Tcp", "InSegs"}, {"Udp", "InDatagrams"}, {"", "Udp6InDatagrams"}} {
		more, err := suite.SNMP(p.NS, c[0], c[1])
		if err != nil {
			w.Fatal(err)
		}
		n += more
	}
	return n
}

// A policy for the same pods and another sender: all of it goes by the stack, which knows
// better, and sends it as it is.
func TestWhatOnlySharesItsDestinationWithAPolicyArrives(t *testing.T) {
	for _, xdp := range modes() {
		t.Run(xdp, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, xdp)
			for _, tun := range w.tunnels() {
				if tun.from == w.entry {
					tun.src = host(tun.src.Addr().Next())
					w.on(w.entry, func() error { return netlink.XfrmPolicyAdd(tun.policy(netlink.XFRM_DIR_OUT)) })
				}
			}
			w.awaitSecured(true)
			for family, addr := range w.remote.addrs() {
				w.wantAll(family, addr)
			}
		})
	}
}

// wantAll sends small and large things both ways.
func (w *world) wantAll(family string, addr netip.Addr) {
	w.Helper()
	for _, size := range []int{100, 1400, 1472, 8000} {
		if err := w.exchangeInTheEnd(addr, size); err != nil {
			w.Errorf("%s, a datagram of %d bytes: %v", family, size, err)
		}
	}
	if err := w.upload(addr); err != nil {
		w.Errorf("%s, upload: %v", family, err)
	}
	if err := w.download(addr); err != nil {
		w.Errorf("%s, download: %v", family, err)
	}
}

// exchangeInTheEnd forgives that both ends have to find out what the tunnel takes, by a datagram
// each.
func (w *world) exchangeInTheEnd(addr netip.Addr, size int) (err error) {
	for range 4 {
		if err = w.exchange(addr, size, 5*time.Second); err == nil {
			return nil
		}
	}
	return err
}

// The second node takes nothing in clear, so what arrives was encrypted.
func TestWhatIPsecEncryptsArrives(t *testing.T) {
	for _, xdp := range []string{"native", "off"} { // see docs/networks.md on generic XDP
		t.Run(xdp, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, xdp)
			w.giveKeys()
			w.secure()
			w.awaitSecured(true)
			for family, addr := range w.remote.addrs() {
				w.wantAll(family, addr)
			}
			if err := w.upload(w.local.vip4); err != nil {
				t.Errorf("to the pod here: %v", err)
			}
			if t.Failed() {
				t.Logf("agent:\n%s", w.said)
			}
		})
	}
}
