package topology

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

// Two who give source ports of one node away: ebb, and netfilter for pods whose
// addresses stay inside, as most CNIs have it.

// guestPort is one that ebb lends to the client whose own it is.
const guestPort = 20001

// masquerade has what pods of the entry node send to others leave by its address.
func (w *world) masquerade() {
	w.Helper()
	w.nft(fmt.Sprintf("table inet cni { chain after { type nat hook postrouting priority 100; oifname %s masquerade; }; }", lab.Uplink))
}

// talk is a connection that is used more than once.
type talk struct {
	net.Conn
	w    *world
	name string
}

// talkFrom connects from a port of ns.
func (w *world) talkFrom(name string, ns *lab.NS, network string, to netip.AddrPort, port int) *talk {
	w.Helper()
	var conn net.Conn
	ctx, cancel := context.WithTimeout(w.Context(), 5*time.Second)
	defer cancel()
	err := ns.Do(func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{Port: port}}
		if network == "udp" {
			d.LocalAddr = &net.UDPAddr{Port: port}
		}
		conn, err = d.DialContext(ctx, network, to.String())
		return err
	})
	if err != nil {
		w.Fatalf("%s connects to %s: %v", name, to, err)
	}
	w.Cleanup(func() { _ = conn.Close() })
	return &talk{Conn: conn, w: w, name: name}
}

// ask wants an answer. A datagram may be lost once: nobody repeats it but who sent it.
func (t *talk) ask(what string, losses int) {
	t.w.Helper()
	var err error
	for range losses + 1 {
		if err = t.SetDeadline(time.Now().Add(2 * time.Second)); err == nil {
			err = t.exchange()
		}
		if err == nil {
			return
		}
	}
	t.w.Fatalf("%s, %s: %v", t.name, what, err)
}

func (t *talk) exchange() error {
	question := "from " + t.name
	if _, err := io.WriteString(t, question); err != nil {
		return err
	}
	answer := make([]byte, len(question))
	if _, err := io.ReadFull(t, answer); err != nil {
		return err
	}
	if string(answer) != question {
		return fmt.Errorf("%q is the answer to %q", answer, question)
	}
	return nil
}

// addEcho starts a pod that says what it hears, over TCP and UDP.
func (w *world) addEcho(n *lab.Node) *lab.Pod {
	w.Helper()
	p, err := n.AddPod("echo-" + n.Name())
	if err != nil {
		w.Fatal(err)
	}
	w.echo(p.NS)
	return p
}

// echo says what it hears in ns, by the ports of a pod.
func (w *world) echo(ns *lab.NS) {
	w.Helper()
	l, err := ns.Listen(w.Context(), "tcp", fmt.Sprint(":", pod.HTTPPort))
	if err != nil {
		w.Fatal(err)
	}
	c, err := ns.ListenPacket(w.Context(), "udp", fmt.Sprint(":", pod.UDPPort))
	if err != nil {
		w.Fatal(err)
	}
	var ended sync.WaitGroup
	w.Cleanup(func() { _, _ = l.Close(), c.Close(); ended.Wait() })
	ended.Go(func() { serveStreams(l, func(conn net.Conn) { _, _ = io.Copy(conn, conn) }) })
	ended.Go(func() { echoDatagrams(c) })
}

// serveStreams runs serve for every connection to l, until l is closed. It closes the connections.
func serveStreams(l net.Listener, serve func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			serve(conn)
		}()
	}
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

// Whoever comes first keeps the port; the other one gets another.
func TestWhatIsMasqueradedAndWhatIsBalancedShareTheNodesPorts(t *testing.T) {
	for _, mode := range []string{"native", "off"} {
		t.Run("xdp "+mode, func(t *testing.T) {
			w := newWorld(t)
			w.masquerade()
			echo := w.addEcho(w.lab.Nodes[1])
			w.publish(echo)
			p := w.startAgentWith("--health-responder", "off", "--east-west", "off", "--xdp", mode)
			w.await("the agent to be ready", p, w.healthy)
			vip4, vip6 := lab.DefaultVIPs()
			port := guestPort
			for _, family := range []struct{ vip, backend netip.Addr }{{vip4, echo.Addr4}, {vip6, echo.Addr6}} {
				for _, network := range []string{"tcp", "udp"} {
					for _, first := range []string{"balanced", "masqueraded"} {
						port++
						w.shareAPort(network, first, family.vip, family.backend, port)
					}
				}
			}
		})
	}
}

// The node, or a pod that is masqueraded, calls out by a port that is a Service's on
// all nodes.
func TestAnswersToConnectionsFromANodePortArrive(t *testing.T) {
	for _, mode := range []string{"native", "off"} {
		t.Run("xdp "+mode, func(t *testing.T) {
			w := newWorld(t)
			w.masquerade()
			w.echo(w.client())
			p := w.startAgentWith("--health-responder", "off", "--east-west", "off", "--xdp", mode)
			w.await("the agent to be ready", p, w.healthy)
			out4, out6 := lab.ClientAddrs()
			for _, out := range []netip.Addr{out4, out6} {
				tcp, udp := netip.AddrPortFrom(out, pod.HTTPPort), netip.AddrPortFrom(out, pod.UDPPort)
				for name, ns := range map[string]*lab.NS{"the node": w.entry.NS, "the pod": w.pods[0].NS} {
					for range 3 {
						a, b := w.talkFrom(name, ns, "tcp", tcp, httpNodePort), w.talkFrom(name, ns, "udp", udp, echoNodePort)
						for range 2 {
							a.ask("by a node port", 0)
							b.ask("by a node port", 0)
						}
						_ = a.abort()
						_ = b.Close()
					}
				}
			}
		})
	}
}

// abort leaves nothing behind that would keep the port.
func (t *talk) abort() error {
	if c, ok := t.Conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	return t.Close()
}

func (w *world) shareAPort(network, first string, vip, backend netip.Addr, port int) {
	w.Helper()
	service, direct := netip.AddrPortFrom(vip, httpPort), netip.AddrPortFrom(backend, pod.HTTPPort)
	if network == "udp" {
		service, direct = netip.AddrPortFrom(vip, echoPort), netip.AddrPortFrom(backend, pod.UDPPort)
	}
	name := fmt.Sprintf("%s to %s from port %d, %s first: ", network, backend, port, first)
	dial := map[string]func() *talk{
		"balanced":    func() *talk { return w.talkFrom(name+"the client", w.client(), network, service, port) },
		"masqueraded": func() *talk { return w.talkFrom(name+"the pod", w.pods[0].NS, network, direct, port) },
	}
	second := map[string]string{"balanced": "masqueraded", "masqueraded": "balanced"}[first]
	losses := 0
	if network == "udp" {
		losses = 1
	}
	a := dial[first]()
	a.ask("its first question", 0)
	b := dial[second]()
	b.ask("its first question", 0)
	for range 3 {
		a.ask("a later question", losses)
		b.ask("a later question", losses)
		losses = 0
	}
}
