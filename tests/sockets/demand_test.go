package sockets

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/lab"
)

// onLink returns how many programs are at the node's end of a pod's link.
func (w *world) onLink(p *lab.Pod) int {
	w.Helper()
	n := 0
	err := p.Node.Do(func() error {
		dev, err := netlink.LinkByName(p.HostDev)
		if err != nil {
			return err
		}
		for hook, parent := range map[ebpf.AttachType]uint32{
			ebpf.AttachTCXIngress: netlink.HANDLE_MIN_INGRESS, ebpf.AttachTCXEgress: netlink.HANDLE_MIN_EGRESS,
		} {
			res, err := link.QueryPrograms(link.QueryOptions{Target: dev.Attrs().Index, Attach: hook})
			if err == nil {
				n += len(res.Programs)
				continue
			}
			filters, err := netlink.FilterList(dev, parent) // a kernel without tcx
			if err != nil {
				return err
			}
			n += len(filters)
		}
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	return n
}

func (w *world) wantOnLink(when string, p *lab.Pod, want int) {
	w.Helper()
	w.await(fmt.Sprintf("%s: %d programs at the link of %s", when, want, p.Name()), func() error {
		if got := w.onLink(p); got != want {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
}

// vips are the load balancer's addresses of shop/web, by network.
func vips(network string) []string {
	port := uint16(httpPort)
	if network == "udp" {
		port = echoPort
	}
	v4, v6 := lab.DefaultVIPs()
	return []string{netip.AddrPortFrom(v4, port).String(), netip.AddrPortFrom(v6, port).String()}
}

// balanced checks that everything at the load balancer's addresses is answered by
// any of three pods, also to unconnected sockets.
func (w *world) balanced(who string, ns *lab.NS) {
	w.run(who+" is served", func(t *testing.T) {
		w := w.in(t)
		for _, network := range []string{"tcp", "udp"} {
			for _, addr := range vips(network) {
				w.reaches(ns, network, addr, "web-1", "web-2", "web-3")
			}
		}
		for _, addr := range vips("udp") {
			c, err := ns.ListenPacket(t.Context(), "udp", "[::]:0")
			if err != nil {
				t.Fatal(err)
			}
			if name, err := answeringTo(c, netip.MustParseAddrPort(addr)); err != nil {
				t.Errorf("an unconnected socket to %s: %q, %v", addr, name, err)
			}
			c.Close()
		}
	})
}

// run is a test within the test of w.
func (w *world) run(name string, test func(*testing.T)) {
	w.Helper()
	t, ok := w.TB.(*testing.T)
	if !ok {
		w.Fatal("only tests have tests")
	}
	t.Run(name, test)
}

// keptOut checks that nothing at the load balancer's addresses is served.
func (w *world) keptOut(who string, ns *lab.NS, failure error) {
	w.run(who+" is kept out", func(t *testing.T) {
		w := w.in(t)
		for _, network := range []string{"tcp", "udp"} {
			for _, addr := range vips(network) {
				if err := w.check(ns, network, addr, nil, failure); err != nil {
					t.Errorf("%s %s: %v", network, addr, err)
				}
			}
		}
	})
}

func ranges(pods ...*lab.Pod) string {
	list := ""
	for _, p := range pods {
		list += fmt.Sprintf("%s/32, %q, ", p.Addr4, netip.PrefixFrom(p.Addr6, 128))
	}
	return list + "192.0.2.64/32"
}

// Source ranges that have some pods and not others, with an agent as it is by
// default: which address a socket will have is not known when it connects.
func TestSourceRangesTellPodsApart(t *testing.T) {
	for name, mode := range map[string]string{"xdp": "native", "tc": "off"} {
		t.Run(name, func(t *testing.T) { testRanges(t, "--xdp", mode) })
	}
}

func testRanges(t *testing.T, options ...string) {
	w := newWorldIn(t, lab.Config{UplinkPeer: lab.NativeXDPPeer()})
	v4, v6 := lab.DefaultVIPs()
	w.routeTo(w.lab.Nodes[1], w.node, []netip.Addr{v4, v6})
	w.begin(options...)
	w.balanced("without ranges", w.client.NS)
	w.wantOnLink("without ranges", w.client, 0)

	out := w.addPod(w.node, "out")
	away, awayOut := w.addPod(w.lab.Nodes[1], "away"), w.addPod(w.lab.Nodes[1], "away-out")
	w.restrict(ranges(w.client, away))
	w.wantOnLink("with ranges", w.client, 2)
	w.balanced("a pod in the ranges", w.client.NS)
	w.balanced("a pod of another node in the ranges", away.NS)
	w.keptOut("a pod", out.NS, os.ErrDeadlineExceeded)
	w.keptOut("a pod of another node", awayOut.NS, os.ErrDeadlineExceeded)
	w.keptOut("a process of the node", w.node.NS, unix.EHOSTUNREACH)
	w.reaches(out.NS, "tcp", dialled(80), "web-1", "web-2", "web-3") // a ClusterIP is for everybody

	late := w.addPod(w.node, "late")
	w.restrict(ranges(late))
	w.wantOnLink("a pod that came later", late, 2)
	w.balanced("a pod that came later", late.NS)
	w.keptOut("a pod that was in them", w.client.NS, os.ErrDeadlineExceeded)

	conn, err := late.Dial(t.Context(), "tcp", vips("tcp")[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w.write("web.yaml", webService())
	w.balanced("everybody without ranges", out.NS)
	if _, err := ask(conn, "/echo/hello"); err != nil {
		t.Errorf("a connection that began with ranges: %v", err)
	}
	w.wantOnLink("a connection goes on", late, 2)
	conn.Close()
	w.await("links without programs once nothing uses them", func() error {
		if err := w.endFlows(); err != nil {
			return err
		}
		if n := w.onLink(late); n > 0 {
			return fmt.Errorf("%d programs", n)
		}
		return nil
	})
}

// endFlows is what ends all flows at once, as time would.
func (w *world) endFlows() error {
	return w.maps(func(s *maps.Set) error {
		var errs []error
		for _, m := range []maps.Flows{s.Flows(), s.HalfOpen(), s.Closed()} {
			var keys []maps.FlowKey
			errs = append(errs, m.Each(func(k maps.FlowKey, _ maps.Flow) bool {
				keys = append(keys, k)
				return true
			}))
			for _, k := range keys {
				errs = append(errs, m.Delete(k))
			}
		}
		return errors.Join(errs...)
	})
}

// addPod adds a pod that only asks.
func (w *world) addPod(n *lab.Node, name string) *lab.Pod {
	w.Helper()
	p, err := n.AddPod(name)
	if err != nil {
		w.Fatal(err)
	}
	return p
}

func TestServicesInPacketModeReachTheirPodsByDefault(t *testing.T) {
	w := newWorld(t)
	w.write("packet.yaml", service("packet", 83, `, annotations: {ebb-lb.dev/east-west: packet}`, ""))
	w.publish("packet", "web-1", "web-3")
	w.sync("packet", dialled(83)+"/TCP")
	for _, ns := range w.origins() {
		for _, ip := range []string{"10.96.0.83", "[fd00:10:96::83]"} {
			w.reaches(ns, "tcp", fmt.Sprint(ip, ":", httpPort), "web-1", "web-3")
			w.reaches(ns, "udp", fmt.Sprint(ip, ":", echoPort), "web-1", "web-3")
		}
	}
	w.wantOnLink("a service in packet mode", w.client, 2)
	w.killAgent()
	w.reaches(w.client.NS, "tcp", dialled(83), "web-1", "web-3")
	w.startAgent()
	w.reaches(w.client.NS, "tcp", dialled(83), "web-1", "web-3")
	w.wantOnLink("with another agent", w.client, 2)
}
