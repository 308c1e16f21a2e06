package topology

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
)

// What nobody serves, as sockets see it.

// Addresses of Services inside the cluster, and those that are nobody's. The
// router sends all of them to the entry node.
var (
	clusterIPs = []netip.Addr{netip.MustParseAddr("10.96.0.80"), netip.MustParseAddr("fd00:10:96::80")}
	nobodys    = []netip.Addr{netip.MustParseAddr("10.96.0.99"), netip.MustParseAddr("fd00:10:96::99")}
)

const serviceCIDRs = `apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: kubernetes}
spec: {cidrs: [10.96.0.0/16, "fd00:10:96::/112"]}
`

// datapaths are the ways by which packets may come to the programs. With the
// offloads of a veth as the kernel has them, they lack their checksums, and so
// does the answer; one that leaves by a device which makes none is finished first.
var datapaths = []struct {
	name, xdp  string
	peer, node lab.Features
}{
	{"tc", "off", lab.Features{}, lab.Features{}},
	{"native XDP", "native", lab.NativeXDPPeer(), lab.Features{}},
	{"tc, checksums finished", "off", lab.Features{}, lab.Features{TxChecksum: lab.Off}},
	{"generic XDP", "generic", lab.Features{TxChecksum: lab.Off}, lab.Features{}},
}

// everyDatapath runs fn in a world of its own for each of them, with an agent
// that has the given options.
func everyDatapath(t *testing.T, fn func(w *world, agent *process), options ...string) {
	someDatapaths(t, len(datapaths), fn, options...)
}

// someDatapaths is everyDatapath for the first n of them, where answers are not
// what matters: TC and native XDP.
func someDatapaths(t *testing.T, n int, fn func(w *world, agent *process), options ...string) {
	vip4, vip6 := lab.DefaultVIPs()
	for _, d := range datapaths[:n] {
		t.Run(d.name, func(t *testing.T) {
			cfg := lab.Config{UplinkPeer: d.peer, NodeUplink: d.node, VIPs: append([]netip.Addr{vip4, vip6}, append(clusterIPs, nobodys...)...)}
			w := newWorldIn(t, cfg)
			w.write("cidrs.yaml", serviceCIDRs)
			agent := w.startAgentWith(append([]string{"--health-responder", "off", "--xdp", d.xdp}, options...)...)
			w.await("the agent to be ready", agent, w.healthy)
			fn(w, agent)
		})
	}
}

const (
	// atOnce is less than TCP waits before it sends a SYN again.
	atOnce = 900 * time.Millisecond
	// secondSYN is when it has surely done so.
	secondSYN = 3 * time.Second
)

// refused reports whether nobody listens at addr, as the network says at once.
//
// Between namespaces sending a SYN and hearing the answer is one call, in which the
// client's socket is locked. Linux takes no ICMP error then (LockDroppedIcmps),
// and over IPv6 only the answer to the second SYN ends a connect. A RST waits for
// the lock.
func (w *world) refused(network, addr string) error {
	bound := atOnce
	if network == "tcp" && netip.MustParseAddrPort(addr).Addr().Is6() {
		bound = secondSYN
	}
	ctx, cancel := context.WithTimeout(w.Context(), bound)
	defer cancel()
	before := w.unreachables()
	err := w.exchange(ctx, network, addr)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	return fmt.Errorf("%s %s: %v after %d ICMP errors, want it refused", network, addr, err, w.unreachables()-before)
}

// answeredAtOnce checks that the first packet to addr is answered: by an ICMP
// error, whether or not the socket takes it.
func (w *world) answeredAtOnce(network, addr string) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), atOnce)
	defer cancel()
	before := w.unreachables()
	err := w.exchange(ctx, network, addr)
	if after := w.unreachables(); after == before {
		w.Errorf("%s %s: %v, and no ICMP error", network, addr, err)
	}
}

// exchange connects, and with datagrams says something until there is an answer: at
// least once, however long it took to have a socket on a busy machine.
func (w *world) exchange(ctx context.Context, network, addr string) error {
	conn, err := w.lab.Client.Dial(ctx, network, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if network == "tcp" {
		return nil
	}
	answer := make([]byte, 100)
	for {
		if _, err := conn.Write([]byte("hello")); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		if _, err := conn.Read(answer); !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// awaitRefused waits until nobody serves the service, and checks that every
// address of it says so.
func (w *world) awaitRefused(p *process) {
	w.Helper()
	http, udp := w.targets()
	for _, a := range clusterIPs {
		http = append(http, netip.AddrPortFrom(a, httpPort).String())
		udp = append(udp, netip.AddrPortFrom(a, echoPort).String())
	}
	for network, targets := range map[string][]string{"tcp": http, "udp": udp} {
		for _, target := range targets {
			w.await(target+" to be refused", p, func() error { return w.refused(network, target) })
		}
	}
}

// packets is how many packets TC has counted so.
func (w *world) packets(verdict string) int {
	w.Helper()
	return w.metric(`ebb_packets_total{hook="tc-ingress",verdict="` + verdict + `"}`)
}

// unreachables is how many ICMP errors of that kind the client has been sent.
func (w *world) unreachables() (n int) {
	w.Helper()
	err := w.lab.Client.Do(func() error {
		v4, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		v6, err := os.ReadFile("/proc/thread-self/net/snmp6")
		n = column(string(v4), "Icmp:", "InDestUnreachs") + line(string(v6), "Icmp6InDestUnreachs")
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return n
}

// column finds a value in a table of two lines that begin with the same word.
func column(text, word, name string) int {
	var names []string
	for l := range strings.Lines(text) {
		fields := strings.Fields(l)
		if len(fields) == 0 || fields[0] != word {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, f := range names {
			if f == name {
				n, _ := strconv.Atoi(fields[i])
				return n
			}
		}
	}
	return -1
}

func line(text, name string) int {
	for l := range strings.Lines(text) {
		if fields := strings.Fields(l); len(fields) == 2 && fields[0] == name {
			n, _ := strconv.Atoi(fields[1])
			return n
		}
	}
	return -1
}

func TestWhatNobodyServesIsRefusedAtOnce(t *testing.T) {
	everyDatapath(t, func(w *world, agent *process) {
		w.wantOtherPortsRefused()
		w.wantNobodysSilent()
		w.publish()
		w.awaitRefused(agent)
		vip4, vip6 := lab.DefaultVIPs()
		for _, vip := range []netip.Addr{vip4, vip6} {
			w.answeredAtOnce("tcp", netip.AddrPortFrom(vip, httpPort).String())
			w.answeredAtOnce("udp", netip.AddrPortFrom(vip, echoPort).String())
		}
		for _, verdict := range []string{"no-port", "no-endpoints"} {
			if w.packets(verdict) == 0 {
				w.Errorf("nothing was counted as %s", verdict)
			}
		}
	})
}

func (w *world) wantOtherPortsRefused() {
	w.Helper()
	for _, a := range clusterIPs {
		for _, network := range []string{"tcp", "udp"} {
			target := netip.AddrPortFrom(a, 4711).String()
			for range 3 {
				w.answeredAtOnce(network, target)
			}
			if err := w.refused(network, target); err != nil {
				w.Error(err)
			}
		}
	}
}

// The packets are gone: the node sends no error, and does not send them back.
func (w *world) wantNobodysSilent() {
	w.Helper()
	for _, a := range nobodys {
		for _, network := range []string{"tcp", "udp"} {
			ctx, cancel := context.WithTimeout(w.Context(), 500*time.Millisecond)
			err := w.exchange(ctx, network, netip.AddrPortFrom(a, httpPort).String())
			cancel()
			if e := net.Error(nil); !errors.As(err, &e) || !e.Timeout() {
				w.Errorf("%s %s: %v, want nothing to happen", network, a, err)
			}
		}
	}
}

// resetAtOnce is refused where a RST does it.
func (w *world) resetAtOnce(addr string) error {
	ctx, cancel := context.WithTimeout(w.Context(), atOnce)
	defer cancel()
	if err := w.exchange(ctx, "tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%s: %v, want it reset", addr, err)
	}
	return nil
}

func TestRefusedTCPIsReset(t *testing.T) {
	everyDatapath(t, func(w *world, agent *process) {
		w.publish()
		vip4, vip6 := lab.DefaultVIPs()
		for _, vip := range []netip.Addr{vip4, vip6} {
			target := netip.AddrPortFrom(vip, httpPort).String()
			w.await(target+" to be refused", agent, func() error { return w.refused("tcp", target) })
		}
		before := w.unreachables()
		for _, a := range append([]netip.Addr{vip4, vip6}, clusterIPs...) {
			for range 10 {
				if err := w.resetAtOnce(netip.AddrPortFrom(a, httpPort).String()); err != nil {
					w.Error(err)
				}
			}
		}
		if after := w.unreachables(); after != before {
			w.Errorf("%d ICMP errors for what was to be reset", after-before)
		}
		if err := w.refused("udp", netip.AddrPortFrom(vip4, echoPort).String()); err != nil {
			w.Error(err)
		}
	}, "--reject-tcp", "reset")
}

func TestEstablishedConnectionsSurviveTheLastEndpoint(t *testing.T) {
	someDatapaths(t, 2, func(w *world, agent *process) {
		var transfers []*transfer
		http, _ := w.targets()
		for range 3 { // likely to pods of both nodes
			for _, target := range http {
				transfers = append(transfers, w.startTransfer(target))
			}
		}
		for _, tr := range transfers {
			tr.awaitMore()
		}
		w.publish()
		w.awaitRefused(agent)
		for _, tr := range transfers {
			tr.awaitMore()
			tr.finish()
		}
	})
}

func TestEstablishedConnectionsAreResetIfSoConfigured(t *testing.T) {
	everyDatapath(t, func(w *world, agent *process) {
		var transfers []*transfer
		http, _ := w.targets()
		for _, target := range http {
			transfers = append(transfers, w.startTransfer(target))
		}
		for _, tr := range transfers {
			tr.awaitMore()
		}
		w.publish()
		w.awaitRefused(agent)
		for _, tr := range transfers {
			select {
			case err := <-tr.ended:
				if !errors.Is(err, syscall.ECONNRESET) {
					w.Errorf("transfer ended by %v, want a reset", err)
				}
			case <-time.After(patience):
				w.Error("a transfer is not reset")
			}
		}
		if w.packets("backend-gone") == 0 {
			w.Error("nothing was counted")
		}
	}, "--on-backend-gone", "reset")
}

// echoMessage is an ICMP echo request; of ICMPv6 the kernel makes the checksum.
func echoMessage(v4 bool) []byte {
	b := append([]byte{8, 0, 0, 0, 0x12, 0x34, 0, 1}, "is anybody there"...)
	if !v4 {
		b[0] = 128
		return b
	}
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	sum = ^(sum>>16 + sum&0xffff)
	b[2], b[3] = byte(sum>>8), byte(sum)
	return b
}

// ping sends one ping and returns the answer, nil if there is none for d.
func (w *world) ping(a netip.Addr, d time.Duration) []byte {
	w.Helper()
	network, reply := "ip4:icmp", byte(0)
	if !a.Is4() {
		network, reply = "ip6:ipv6-icmp", 129
	}
	conn, err := w.lab.Client.Dial(w.Context(), network, a.String())
	if err != nil {
		w.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(echoMessage(a.Is4())); err != nil {
		w.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		w.Fatal(err)
	}
	b := make([]byte, 1500)
	for {
		n, err := conn.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		if err != nil {
			w.Fatal(err)
		}
		msg := b[:n]
		if a.Is4() {
			msg = msg[int(b[0]&0xf)*4:] // a raw socket shows the header
		}
		if len(msg) > 8 && msg[0] == reply {
			return msg[8:]
		}
	}
}

func TestPingsOfExternalAddressesAreAnswered(t *testing.T) {
	vip4, vip6 := lab.DefaultVIPs()
	everyDatapath(t, func(w *world, _ *process) {
		for _, vip := range []netip.Addr{vip4, vip6} {
			if got := string(w.ping(vip, patience)); got != "is anybody there" {
				w.Errorf("%s answers %q", vip, got)
			}
		}
		if n := w.packets("echo"); n != 2 {
			w.Errorf("%d pings counted, want 2", n)
		}
		for _, a := range append(clusterIPs, nobodys...) {
			if got := w.ping(a, 200*time.Millisecond); got != nil {
				w.Errorf("%s answers %q", a, got)
			}
		}
	}, "--vip-echo", "on")
}

func TestPingsOfExternalAddressesAreLeftAloneByDefault(t *testing.T) {
	vip4, vip6 := lab.DefaultVIPs()
	someDatapaths(t, 1, func(w *world, _ *process) {
		for _, vip := range []netip.Addr{vip4, vip6} {
			if got := w.ping(vip, 200*time.Millisecond); got != nil {
				w.Errorf("%s answers %q", vip, got)
			}
		}
		if n := w.packets("echo"); n != 0 {
			w.Errorf("%d pings answered", n)
		}
	})
}
