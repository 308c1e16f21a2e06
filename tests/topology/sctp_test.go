package topology

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/packet"
)

// The port pods listen on; what is dialled is the number HTTP has, too.
const sctpPort = 5000

// newSCTPWorld has a service of SCTP beside the one of the world, on the same
// addresses and port numbers, with the same pods.
func newSCTPWorld(t *testing.T, xdp string) *world {
	t.Helper()
	return newSCTPWorldIn(t, xdp, lab.Config{UplinkPeer: lab.NativeXDPPeer()})
}

func newSCTPWorldIn(t *testing.T, xdp string, cfg lab.Config) *world {
	t.Helper()
	w := newWorldIn(t, cfg)
	for _, p := range w.pods {
		w.answerAssociations(p, sctpPort)
	}
	vip4, vip6 := lab.DefaultVIPs()
	w.write("sctp.yaml", fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: sig, namespace: core}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.81
  clusterIPs: [10.96.0.81, "fd00:10:96::81"]
  ipFamilies: [IPv4, IPv6]
  ports: [{name: sig, protocol: SCTP, port: %d, nodePort: %d}]
status: {loadBalancer: {ingress: [{ip: %s, ipMode: VIP}, {ip: "%s", ipMode: VIP}]}}
`, httpPort, httpNodePort, vip4, vip6))
	w.publishSCTP(w.pods...)
	agent := w.startAgentWith("--health-responder", "off", "--xdp", xdp)
	w.await("the agent to be ready", agent, func() error { return w.healthy() })
	return w
}

func (w *world) publishSCTP(pods ...*lab.Pod) {
	w.Helper()
	slice := func(family string, addr func(*lab.Pod) netip.Addr) string {
		text := fmt.Sprintf(`---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: sig-%s, namespace: core, labels: {kubernetes.io/service-name: sig}}
addressType: %s
ports: [{name: sig, protocol: SCTP, port: %d}]
endpoints:
`, strings.ToLower(family), family, sctpPort)
		for _, p := range pods {
			text += fmt.Sprintf("- {addresses: [%q], nodeName: %s}\n", addr(p), p.Node.Name())
		}
		return text
	}
	w.write("sctpslices.yaml", slice("IPv4", func(p *lab.Pod) netip.Addr { return p.Addr4 })+
		slice("IPv6", func(p *lab.Pod) netip.Addr { return p.Addr6 }))
}

// caller is a dialler of one family and what it may dial.
type caller struct {
	*dialler
	targets []netip.AddrPort
}

func (w *world) callers() []caller {
	w.Helper()
	vip4, vip6 := lab.DefaultVIPs()
	return []caller{
		{w.newDialler("ip4:132"), []netip.AddrPort{netip.AddrPortFrom(vip4, httpPort), netip.AddrPortFrom(w.entry.Addr4, httpNodePort)}},
		{w.newDialler("ip6:132"), []netip.AddrPort{netip.AddrPortFrom(vip6, httpPort), netip.AddrPortFrom(w.entry.Addr6, httpNodePort)}},
	}
}

// call begins n associations with each target of every caller.
func call(n int, callers []caller) (all []*association) {
	for _, c := range callers {
		for range n {
			for _, target := range c.targets {
				all = append(all, c.dial(target))
			}
		}
	}
	return all
}

// Through a rollout: pods of this node and another are reached, ports and
// checksums are right both ways, and who has an association keeps it.
func TestAssociationsOutliveTheirEndpoints(t *testing.T) {
	for _, xdp := range []string{"native", "off"} {
		t.Run("xdp "+xdp, func(t *testing.T) {
			w := newSCTPWorld(t, xdp)
			callers := w.callers()
			all := call(16, callers)
			reached := make(map[string]bool)
			for _, a := range all {
				reached[a.pod] = true
			}
			if len(reached) != len(w.pods) {
				t.Errorf("%d associations reached only %v", len(all), reached)
			}
			if n := w.metric(`ebb_packets_total{hook="xdp",verdict="to-remote"}`); (n > 0) != (xdp == "native") {
				t.Errorf("XDP sent %d packets to the other node", n)
			}
			w.publishSCTP(w.pods[0])
			w.poll("new associations to come to the pod that is left only", func() bool {
				return allAt(w.pods[0].Name(), call(4, callers))
			})
			for _, a := range all {
				if pod := a.ask(packet.Data, podTag); pod != a.pod {
					t.Errorf("an association with %s came to %s", a.pod, pod)
				}
				a.end()
			}
			w.poll("every association to be counted, and closed", func() bool {
				opened, closed := w.metric("ebb_connections_opened_total"), w.metric("ebb_connections_closed_total")
				return opened >= len(all) && opened == closed
			})
		})
	}
}

// allAt reports whether all of them are with one pod, and ends them.
func allAt(pod string, all []*association) bool {
	only := true
	for _, a := range all {
		only = only && a.pod == pod
		a.end()
	}
	return only
}

// A pod's SCTP socket leaves the checksum to whoever sends the packet out, and
// leaves its field zero, over which it is made.
func TestAChecksumThatIsYetToBeMadeIsLeftAlone(t *testing.T) {
	w := newSCTPWorld(t, "off")
	callers := w.callers()
	w.publishSCTP(w.pods[0])
	w.poll("associations to come to one pod only", func() bool { return allAt(w.pods[0].Name(), call(4, callers)) })
	for _, a := range call(1, callers) {
		sendUnfinished(t, w.pods[0], a)
		b, err := a.receive()
		if err != nil {
			t.Fatal(err)
		}
		if check := binary.LittleEndian.Uint32(b[8:]); check != 0 {
			t.Errorf("the checksum of an answer from %s arrives as %#x", a.target, check)
		}
	}
}

// netHeader is struct virtio_net_hdr (linux/virtio_net.h): what a packet socket
// says of a packet beside its bytes.
type netHeader struct {
	Flags, GSOType            uint8
	HeaderLen, GSOSize        uint16
	ChecksumStart, ChecksumAt uint16
}

// needsChecksum is VIRTIO_NET_HDR_F_NEEDS_CSUM.
const needsChecksum = 1

// sendUnfinished sends a packet of pod p to the client of a, its checksum zero
// and to be made by the kernel (CHECKSUM_PARTIAL).
func sendUnfinished(t *testing.T, p *lab.Pod, a *association) {
	t.Helper()
	client, _ := lab.ClientAddrs()
	src := p.Addr4
	if a.target.Addr().Is6() {
		_, client = lab.ClientAddrs()
		src = p.Addr6
	}
	sendPartial(t, p.NS, p.Node.NS, p.HostDev, packet.Spec{
		Src: netip.AddrPortFrom(src, sctpPort), Dst: netip.AddrPortFrom(client, a.port), Proto: maps.SCTP,
		Chunk: packet.Data, Tag: clientTag, Payload: []byte("unfinished"),
	})
}

// sendPartial sends a packet of SCTP whose checksum is the kernel's to make out of
// namespace from, whose uplink leads to device dev of namespace to.
func sendPartial(t *testing.T, from, to *lab.NS, dev string, s packet.Spec) {
	t.Helper()
	var err error
	if s.DstMAC, err = hardwareAddr(to, dev); err != nil {
		t.Fatal(err)
	}
	if s.SrcMAC, err = hardwareAddr(from, lab.Uplink); err != nil {
		t.Fatal(err)
	}
	frame, err := s.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	const at = 8
	copy(frame[s.L4()+at:], []byte{0, 0, 0, 0})
	head, err := binary.Append(nil, binary.NativeEndian, netHeader{
		Flags: needsChecksum, HeaderLen: uint16(s.L4()), ChecksumStart: uint16(s.L4()), ChecksumAt: at,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := from.Do(func() error { return sendFrame(lab.Uplink, append(head, frame...)) }); err != nil {
		t.Fatal(err)
	}
}

func hardwareAddr(ns *lab.NS, dev string) (mac net.HardwareAddr, err error) {
	err = ns.Do(func() error {
		l, err := netlink.LinkByName(dev)
		if err == nil {
			mac = l.Attrs().HardwareAddr
		}
		return err
	})
	return mac, err
}

// sendFrame sends a frame behind its netHeader by a device of the calling
// thread's namespace.
func sendFrame(dev string, b []byte) error {
	l, err := netlink.LinkByName(dev)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		return fmt.Errorf("set PACKET_VNET_HDR: %w", err)
	}
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index}); err != nil {
		return fmt.Errorf("send by %s: %w", dev, err)
	}
	return nil
}
