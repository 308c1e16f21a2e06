package topology

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

// The kernel of the entry node notices within about four seconds that a neighbour it
// sends to has another MAC, and so must what ebb sends. The clients' TCP repeats its
// packets at growing distances, and a busy machine comes on top.
const noticed = 25 * time.Second

// leaseOver is when programs do without an agent that was killed.
const leaseOver = 8 * time.Second

// noticeFast makes it so: an address is good for a second at most, then there is one
// question after another second.
func (w *world) noticeFast() {
	w.Helper()
	err := w.entry.Do(func() error {
		for name, value := range map[string]string{"base_reachable_time_ms": "700", "delay_first_probe_time": "1", "ucast_solicit": "1"} {
			for _, family := range []string{"ipv4", "ipv6"} {
				path := fmt.Sprintf("/proc/sys/net/%s/neigh/%s/%s", family, lab.Uplink, name)
				if err := os.WriteFile(path, []byte(value), 0); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
}

// replaceMAC gives the other node another MAC, as if the machine were replaced, and
// tells nobody.
func (w *world) replaceMAC(last byte) {
	w.Helper()
	err := w.lab.Nodes[1].Do(func() error {
		dev, err := netlink.LinkByName(lab.Uplink)
		if err != nil {
			return err
		}
		return netlink.LinkSetHardwareAddr(dev, net.HardwareAddr{2, 0, 0x5e, 0, 0, last})
	})
	if err != nil {
		w.Fatal(err)
	}
}

// dialogue is a connection that asks one thing after the other.
type dialogue struct {
	w    *world
	conn net.Conn
}

func (w *world) converse(to netip.AddrPort) *dialogue {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	conn, err := w.client().Dial(ctx, "tcp", to.String())
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { conn.Close() })
	d := &dialogue{w: w, conn: conn}
	d.ask()
	return d
}

// ask returns how long an answer takes.
func (d *dialogue) ask() time.Duration {
	d.w.Helper()
	begin := time.Now()
	_ = d.conn.SetDeadline(begin.Add(patience))
	word := []byte("hello")
	if _, err := d.conn.Write(word); err != nil {
		d.w.Fatal(err)
	}
	if _, err := io.ReadFull(d.conn, word); err != nil {
		d.w.Fatalf("established: no answer after %s: %v", time.Since(begin), err)
	}
	return time.Since(begin)
}

// connect returns how long it takes until a new connection is answered.
func (w *world) connect(to netip.AddrPort) time.Duration {
	w.Helper()
	begin := time.Now()
	for time.Since(begin) < patience {
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		conn, err := w.client().Dial(ctx, "tcp", to.String())
		cancel()
		if err == nil {
			(&dialogue{w: w, conn: conn}).ask()
			_ = conn.Close()
			return time.Since(begin)
		}
	}
	w.Fatalf("new connections: no answer after %s", patience)
	return 0
}

// wantNoticed replaces the other node twice: under a connection that is open, and
// with new ones only.
func (w *world) wantNoticed(what string, to netip.AddrPort, mac byte) {
	w.Helper()
	d := w.converse(to)
	w.replaceMAC(mac)
	established := d.ask()
	_ = d.conn.Close()
	w.replaceMAC(mac + 1)
	fresh := w.connect(to)
	w.Logf("%s: established %.1f s, new connections %.1f s", what, established.Seconds(), fresh.Seconds())
	if established > noticed || fresh > noticed {
		w.Errorf("%s: another MAC is noticed after %s (established) and %s (new connections), want %s at most", what, established, fresh, noticed)
	}
}

// TestANextHopWithAnotherMACIsNoticedAsByPlainRouting: without an ARP announcement,
// whoever lives.
func TestANextHopWithAnotherMACIsNoticedAsByPlainRouting(t *testing.T) {
	for _, xdp := range []string{"native", "off"} {
		t.Run("xdp "+xdp, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.noticeFast()
			echo := w.addEcho(w.lab.Nodes[1])
			w.publish(echo)
			w.routeThrough(echo)
			vip4, vip6 := lab.DefaultVIPs()
			w.wantNoticed("plain routing", netip.AddrPortFrom(echo.Addr4, pod.HTTPPort), 0x10)
			agent := w.startAgentWith("--health-responder", "off", "--xdp", xdp)
			w.await("the agent to be ready", agent, func() error { return w.healthy() })
			w.wantNoticed("agent alive", netip.AddrPortFrom(vip4, httpPort), 0x20)
			w.wantNoticed("agent alive, IPv6", netip.AddrPortFrom(vip6, httpPort), 0x30)
			agent.kill()
			<-time.After(leaseOver)
			w.wantNoticed("agent dead", netip.AddrPortFrom(vip4, httpPort), 0x40)
		})
	}
}

// routeThrough makes the router send what is for p through the entry node.
func (w *world) routeThrough(p *lab.Pod) {
	w.Helper()
	err := w.lab.Router.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{
			Dst: &net.IPNet{IP: p.Addr4.AsSlice(), Mask: net.CIDRMask(32, 32)}, Gw: w.entry.Addr4.AsSlice(),
		})
	})
	if err != nil {
		w.Fatal(err)
	}
}
