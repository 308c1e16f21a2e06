// Package maps is typed access to ebb's BPF maps: Go values in, Go values out.
// It knows layouts, byte order and padding. It deliberately knows no policy, no
// Kubernetes object and nothing about programs or devices.
package maps

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Proto is an IP protocol number (IANA "Protocol Numbers").
type Proto uint8

// The protocols ebb balances.
const (
	TCP  Proto = 6
	UDP  Proto = 17
	SCTP Proto = 132
)

// String returns the name Kubernetes uses: "TCP", "UDP", "SCTP".
func (p Proto) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	}
	return fmt.Sprintf("protocol(%d)", uint8(p))
}

// ServicePortID identifies a service port in the maps. It is stable over restarts.
type ServicePortID uint32

// BackendID is an index into the backends map.
type BackendID uint32

// Frontend is what clients dial. Addr is never a v4-mapped IPv6 address. The
// unspecified address stands for any of this node's: programs on sockets ask for
// it, no packet does.
type Frontend struct {
	Addr  netip.Addr
	Port  uint16
	Proto Proto
}

// String formats f as "10.0.0.1:80/TCP".
func (f Frontend) String() string {
	return netip.AddrPortFrom(f.Addr, f.Port).String() + "/" + f.Proto.String()
}

// Compare orders frontends by address, port, protocol.
func (f Frontend) Compare(g Frontend) int {
	if c := netip.AddrPortFrom(f.Addr, f.Port).Compare(netip.AddrPortFrom(g.Addr, g.Port)); c != 0 {
		return c
	}
	return int(f.Proto) - int(g.Proto)
}

// Table is a region of the slots map. The zero Table has no candidates.
type Table struct {
	Offset uint32
	Length uint32
}

// Service is what a frontend points at.
type Service struct {
	ServicePort ServicePortID
	// ExternalLocal makes clients outside the cluster use the Local table.
	ExternalLocal bool
	// InternalLocal says that Cluster holds the candidates of the policy Local:
	// a ClusterIP with internalTrafficPolicy Local.
	InternalLocal bool
	// Restricted lets only clients in a source range of the service port in.
	Restricted bool
	// PodsIn says of a restricted frontend that all pods are in its source ranges,
	// PodsOut that none is. Neither: it depends on the pod, or pods have no ranges.
	PodsIn, PodsOut bool
	// NodePort: the frontend is one.
	NodePort bool
	// Packet: sockets of pods leave the frontend to programs on their links.
	Packet bool
	// HasEndpoints says that there are usable endpoints, here or elsewhere.
	HasEndpoints bool
	// Affinity is how long a client keeps its backend after its last new
	// connection, in whole seconds; 0: it does not.
	Affinity time.Duration
	// Cluster and Local are the lookup tables of the two traffic policies
	// (Kubernetes internalTrafficPolicy, externalTrafficPolicy).
	Cluster, Local Table
}

// ServicePort is the name behind a ServicePortID. Each part has at most 63
// bytes; Port may be empty (an unnamed port).
type ServicePort struct {
	Namespace string
	Service   string
	Port      string
	Proto     Proto
}

// String formats s as "namespace/service:port/TCP".
func (s ServicePort) String() string {
	return s.Namespace + "/" + s.Service + ":" + s.Port + "/" + s.Proto.String()
}

// State is where a backend is in its life.
type State uint8

// The states of a backend. Free entries never leave package maps.
const (
	Free     State = 0
	Active   State = 1 // takes new and established flows
	Draining State = 2 // established flows; new ones only if a table names it
	Gone     State = 3 // left the slices; the entry stays until its index is reused
)

// String returns the state in lower case.
func (s State) String() string {
	switch s {
	case Free:
		return "free"
	case Active:
		return "active"
	case Draining:
		return "draining"
	case Gone:
		return "gone"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Backend is a pod's address as the endpoint of one service port.
type Backend struct {
	Addr  netip.AddrPort
	State State
	// Local means it runs on this node: its packets keep the client's address.
	Local bool
	// InCluster and InLocal say of which policies it is a candidate. The tables
	// tell that too, but cannot be searched.
	InCluster, InLocal bool
	// Unserving: it is not ready any more while others are. Datagrams go to
	// those; connections stay.
	Unserving bool
	// Elsewhere: another node is named for it. Of a backend that is neither Local nor
	// Elsewhere the node is not known.
	Elsewhere bool
	// Moved: it is Gone because its address has come to this node, or left it. Flows of
	// it cannot go on: what they were translated to leads elsewhere now.
	Moved bool
	// Generation changes each time the index is given to another backend; a
	// flow with another generation belongs to a backend that is gone.
	Generation  uint32
	ServicePort ServicePortID
}

// FlowKey is the tuple of a packet as it is on the wire.
type FlowKey struct {
	Src, Dst netip.AddrPort
	Proto    Proto
}

// String formats k as "TCP 192.0.2.1:4000 > 10.0.0.1:80".
func (k FlowKey) String() string {
	return k.Proto.String() + " " + k.Src.String() + " > " + k.Dst.String()
}

// FlowFlags are the bits of Flow.Flags (enum flow_flag in bpf/abi/types.h).
type FlowFlags uint32

// Bits of a flow. Each connection has two entries, one per direction.
const (
	FlowReverse  FlowFlags = 1 << 0 // from the backend to the client
	FlowRemote   FlowFlags = 1 << 1 // backend elsewhere; unless FlowPod routed by ebb itself, source rewritten
	FlowFIN      FlowFlags = 1 << 2 // FIN seen in this entry's direction
	FlowPeerFIN  FlowFlags = 1 << 3 // FIN seen in the other direction
	FlowRST      FlowFlags = 1 << 4
	FlowPeerRST  FlowFlags = 1 << 5
	FlowClosed   FlowFlags = 1 << 6  // on its way out of flows; on the forward entry: counted
	FlowReplied  FlowFlags = 1 << 7  // half-open: the backend has answered
	FlowPod      FlowFlags = 1 << 8  // begun at a pod's link, and acts there only
	FlowHairpin  FlowFlags = 1 << 9  // with FlowPod: the backend is the client
	FlowStream   FlowFlags = 1 << 10 // UDP: has lasted two seconds
	FlowSticky   FlowFlags = 1 << 11 // its frontend has session affinity
	FlowTaken    FlowFlags = 1 << 12 // half-open: being established, or given to another flow
	FlowMidway   FlowFlags = 1 << 13 // half-open: begun by the middle of a connection
	FlowProved   FlowFlags = 1 << 14 // half-open: established, but flows has no room
	FlowAgain    FlowFlags = 1 << 15 // half-open: answered, and a SYN of another number has come since
	FlowOccupied FlowFlags = 1 << 16 // half-open: the backend has another connection by its tuple
	FlowOutward  FlowFlags = 1 << 17 // a guest that leaves the node, see FlowGuest
	FlowGuest    FlowFlags = 1 << 18 // a connection without a Service, whose port a flow has towards its backend
)

// Flow is one direction of a connection: what its packets become.
type Flow struct {
	// Src and Dst are what a packet carries after translation.
	Src, Dst   netip.AddrPort
	Backend    BackendID
	Generation uint32
	// Seen is the tick (see Clock) of the last packet in this direction.
	Seen uint32
	// Ack is the last acknowledgement number of this direction (TCP) or its
	// verification tag (SCTP); of a half-open flow, what its next packet must have.
	Ack uint32
	// End is the sequence number behind this direction's last segment (TCP).
	End uint32
	// Began is the tick of the first packet; of a closed flow, that of its end.
	Began uint32
	Flags FlowFlags
	// Since is the monotonic time of the SYN; half-open flows only.
	Since time.Duration
}

// Closed reports whether the connection has ended: a valid RST, or FIN in
// both directions.
func (f Flow) Closed() bool {
	if f.Flags&(FlowRST|FlowPeerRST) != 0 {
		return true
	}
	return f.Flags&FlowFIN != 0 && f.Flags&FlowPeerFIN != 0
}

// LatencyBuckets is the number of buckets of a handshake histogram: bucket i
// counts [2^i, 2^(i+1)) microseconds, the last one everything above.
const LatencyBuckets = 20

// BackendCounts is what one backend has done since its index was first used,
// summed over CPUs. Bytes are layer 3. Rx is from the backend.
type BackendCounts struct {
	// Opened and Closed are those of flows. Sockets of this node have none.
	Opened, Closed uint64
	// SocketOpened are the times a socket connected to a frontend and got the
	// backend, SocketClosed those of them that are over: see bpf/sock.h.
	SocketOpened, SocketClosed uint64
	Packets, Bytes             uint64
	RxPackets, RxBytes         uint64
	Handshake                  [LatencyBuckets]uint64
}

// LiveFlows is the number of flows the backend has in the map flows. CPUs are
// read one after the other, so what ends meanwhile may be seen before it begins.
func (c BackendCounts) LiveFlows() int {
	if c.Closed > c.Opened {
		return 0
	}
	return int(c.Opened - c.Closed)
}

// LiveSockets is the number of sockets that have the backend. CPUs are read one
// after the other, so what closes meanwhile may be seen before it opens.
func (c BackendCounts) LiveSockets() int {
	if c.SocketClosed > c.SocketOpened {
		return 0
	}
	return int(c.SocketOpened - c.SocketClosed)
}

// Runtime is the few values that change while programs run. An invalid
// address means the family is not available.
type Runtime struct {
	// SNAT4 and SNAT6 are the sources of flows to other nodes that leave by a device
	// without an address of its own.
	SNAT4, SNAT6 netip.Addr
	// NodeBits has the [AddressBit] of each address of the node.
	NodeBits uint64
	// HostNetns is the cookie of the node's network namespace; 0: not known.
	HostNetns uint64
	// Services4 and Services6 contain all service ranges and ClusterIPs of
	// their family: other addresses are not asked for. An invalid prefix: any
	// address is.
	Services4, Services6 netip.Prefix
}

// AddressBit is the bit of a in [Runtime].NodeBits: a filter, others may share it.
func AddressBit(a netip.Addr) uint64 {
	b := a.As16()
	var fold uint32
	for i := 0; i < len(b); i += 4 {
		fold ^= binary.NativeEndian.Uint32(b[i:])
	}
	return 1 << (fold * 0x9e3779b1 >> 26)
}

// Device is how packets leave by a device.
type Device struct {
	// Lower is the ifindex below a VLAN device, VLAN its tag; else 0.
	Lower uint32
	VLAN  uint16
	// XDPTx: XDP may send through it (through Lower, where there is one).
	XDPTx bool
	// Away: it leads to other machines only. Else pods of this node may be behind it.
	Away bool
	// SNAT4 and SNAT6 are the sources of flows that leave by it; invalid: those of
	// [Runtime].
	SNAT4, SNAT6 netip.Addr
	// Answers: it is no uplink, nothing begins there.
	Answers bool
	// Stacked: programs of the devices below it, a bridge's ports among them, look at
	// what comes in first.
	Stacked bool
}

// Station is an address that frames for this node are sent to.
type Station struct {
	Ifindex uint32 // of the device where they come in
	VLAN    uint16 // the tag they have; 0: none
	MAC     MAC
}

// String returns the station as "3 02:00:00:00:00:01", or "3.100 ..." with a tag.
func (s Station) String() string {
	if s.VLAN == 0 {
		return fmt.Sprintf("%d %s", s.Ifindex, s.MAC)
	}
	return fmt.Sprintf("%d.%d %s", s.Ifindex, s.VLAN, s.MAC)
}

// Compare orders stations by device, tag and MAC.
func (s Station) Compare(t Station) int {
	return cmp.Or(cmp.Compare(s.Ifindex, t.Ifindex), cmp.Compare(s.VLAN, t.VLAN), bytes.Compare(s.MAC[:], t.MAC[:]))
}

// MAC is an Ethernet address.
type MAC [6]byte

// String formats m as "02:00:00:00:00:01".
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Hook is where a program is attached.
type Hook uint8

// The hooks, in the order of their counters.
const (
	HookXDP Hook = iota
	HookTCIngress
	HookTCEgress
	HookSocket
	HookPodIngress
	HookPodEgress
	HookCount
)

// String returns the hook as metrics and tables show it.
func (h Hook) String() string {
	switch h {
	case HookXDP:
		return "xdp"
	case HookTCIngress:
		return "tc-ingress"
	case HookTCEgress:
		return "tc-egress"
	case HookSocket:
		return "socket"
	case HookPodIngress:
		return "pod-ingress"
	case HookPodEgress:
		return "pod-egress"
	}
	return fmt.Sprintf("hook(%d)", uint8(h))
}
