package maps

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/ebb-lb/ebb/bpf"
)

// This file alone knows what Go values look like in the maps: addresses are 16
// bytes with IPv4 v4-mapped, ports are big-endian, everything else has the
// byte order of the machine, names are padded with NUL, absent addresses are
// all zero. Functions towards the maps expect validated values.

// toWire makes a big-endian port of p, as a field of a generated type holds it.
func toWire(p uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], p)
	return binary.NativeEndian.Uint16(b[:])
}

// fromWire is the inverse of toWire.
func fromWire(p uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], p)
	return binary.BigEndian.Uint16(b[:])
}

func toAddr(a netip.Addr) bpf.LayoutIpAddr {
	if !a.IsValid() {
		return bpf.LayoutIpAddr{}
	}
	return bpf.LayoutIpAddr{B: a.As16()}
}

func fromAddr(a bpf.LayoutIpAddr) netip.Addr { return netip.AddrFrom16(a.B).Unmap() }

func fromAddrPort(a bpf.LayoutIpAddr, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(fromAddr(a), fromWire(port))
}

// fromOptionalAddr is fromAddr where all zero means that there is none.
func fromOptionalAddr(a bpf.LayoutIpAddr) netip.Addr {
	if a == (bpf.LayoutIpAddr{}) {
		return netip.Addr{}
	}
	return fromAddr(a)
}

func toFrontendKey(f Frontend) bpf.LayoutFrontendKey {
	k := bpf.LayoutFrontendKey{Addr: toAddr(f.Addr), Port: toWire(f.Port), Proto: uint8(f.Proto)}
	if f.Addr.IsUnspecified() {
		k.Any = 1
	}
	return k
}

func fromFrontendKey(k *bpf.LayoutFrontendKey) Frontend {
	return Frontend{Addr: fromAddr(k.Addr), Port: fromWire(k.Port), Proto: Proto(k.Proto)}
}

// bit is flag if on.
func bit[F ~uint32](on bool, flag F) F {
	if on {
		return flag
	}
	return 0
}

func toFrontend(s Service) bpf.LayoutFrontend {
	flags := bit(s.ExternalLocal, bpf.LayoutFrontendFlagFRONTEND_LOCAL) |
		bit(s.InternalLocal, bpf.LayoutFrontendFlagFRONTEND_INTERNAL_LOCAL) |
		bit(s.Restricted, bpf.LayoutFrontendFlagFRONTEND_RANGES) |
		bit(s.PodsIn, bpf.LayoutFrontendFlagFRONTEND_PODS_IN) |
		bit(s.PodsOut, bpf.LayoutFrontendFlagFRONTEND_PODS_OUT) |
		bit(s.NodePort, bpf.LayoutFrontendFlagFRONTEND_NODE_PORT) |
		bit(s.Packet, bpf.LayoutFrontendFlagFRONTEND_PACKET) |
		bit(s.HasEndpoints, bpf.LayoutFrontendFlagFRONTEND_ENDPOINTS)
	return bpf.LayoutFrontend{
		ServicePort: uint32(s.ServicePort),
		Flags:       uint32(flags),
		Affinity:    uint32(s.Affinity / time.Second),
		Cluster:     bpf.LayoutTable{Offset: s.Cluster.Offset, Length: s.Cluster.Length},
		Local:       bpf.LayoutTable{Offset: s.Local.Offset, Length: s.Local.Length},
	}
}

func fromFrontend(v *bpf.LayoutFrontend) Service {
	flags := bpf.LayoutFrontendFlag(v.Flags)
	return Service{
		ServicePort:   ServicePortID(v.ServicePort),
		ExternalLocal: flags&bpf.LayoutFrontendFlagFRONTEND_LOCAL != 0,
		InternalLocal: flags&bpf.LayoutFrontendFlagFRONTEND_INTERNAL_LOCAL != 0,
		Restricted:    flags&bpf.LayoutFrontendFlagFRONTEND_RANGES != 0,
		PodsIn:        flags&bpf.LayoutFrontendFlagFRONTEND_PODS_IN != 0,
		PodsOut:       flags&bpf.LayoutFrontendFlagFRONTEND_PODS_OUT != 0,
		NodePort:      flags&bpf.LayoutFrontendFlagFRONTEND_NODE_PORT != 0,
		Packet:        flags&bpf.LayoutFrontendFlagFRONTEND_PACKET != 0,
		HasEndpoints:  flags&bpf.LayoutFrontendFlagFRONTEND_ENDPOINTS != 0,
		Affinity:      time.Duration(v.Affinity) * time.Second,
		Cluster:       Table{Offset: v.Cluster.Offset, Length: v.Cluster.Length},
		Local:         Table{Offset: v.Local.Offset, Length: v.Local.Length},
	}
}

func toServicePort(s ServicePort) bpf.LayoutServicePort {
	v := bpf.LayoutServicePort{Proto: uint8(s.Proto)}
	copy(v.Namespace[:], s.Namespace)
	copy(v.Service[:], s.Service)
	copy(v.Port[:], s.Port)
	return v
}

func fromServicePort(v *bpf.LayoutServicePort) ServicePort {
	return ServicePort{
		Namespace: fromName(v.Namespace[:]),
		Service:   fromName(v.Service[:]),
		Port:      fromName(v.Port[:]),
		Proto:     Proto(v.Proto),
	}
}

func fromName(b []byte) string {
	name, _, _ := bytes.Cut(b, []byte{0})
	return string(name)
}

func toBackend(b Backend) bpf.LayoutBackend {
	flags := bit(b.Local, bpf.LayoutBackendFlagBACKEND_LOCAL) |
		bit(b.InCluster, bpf.LayoutBackendFlagBACKEND_IN_CLUSTER) |
		bit(b.InLocal, bpf.LayoutBackendFlagBACKEND_IN_LOCAL) |
		bit(b.Unserving, bpf.LayoutBackendFlagBACKEND_UNSERVING) |
		bit(b.Elsewhere, bpf.LayoutBackendFlagBACKEND_ELSEWHERE) |
		bit(b.Moved, bpf.LayoutBackendFlagBACKEND_MOVED)
	return bpf.LayoutBackend{
		Addr:        toAddr(b.Addr.Addr()),
		Port:        toWire(b.Addr.Port()),
		State:       uint8(b.State),
		Flags:       uint8(flags),
		Generation:  b.Generation,
		ServicePort: uint32(b.ServicePort),
	}
}

func fromBackend(v *bpf.LayoutBackend) Backend {
	flags := bpf.LayoutBackendFlag(v.Flags)
	return Backend{
		Addr:        fromAddrPort(v.Addr, v.Port),
		State:       State(v.State),
		Local:       flags&bpf.LayoutBackendFlagBACKEND_LOCAL != 0,
		InCluster:   flags&bpf.LayoutBackendFlagBACKEND_IN_CLUSTER != 0,
		InLocal:     flags&bpf.LayoutBackendFlagBACKEND_IN_LOCAL != 0,
		Unserving:   flags&bpf.LayoutBackendFlagBACKEND_UNSERVING != 0,
		Elsewhere:   flags&bpf.LayoutBackendFlagBACKEND_ELSEWHERE != 0,
		Moved:       flags&bpf.LayoutBackendFlagBACKEND_MOVED != 0,
		Generation:  v.Generation,
		ServicePort: ServicePortID(v.ServicePort),
	}
}

// slotBytes is the distance of slots in memory: the kernel aligns what is in an
// array to 8 bytes, half of which a slot does not use.
const slotBytes = 8

// toSlots writes ids into b, which has slotBytes for each.
func toSlots(b []byte, ids []BackendID) {
	for i, id := range ids {
		binary.NativeEndian.PutUint32(b[i*slotBytes:], uint32(id))
	}
}

// fromSlots is the inverse of toSlots.
func fromSlots(ids []BackendID, b []byte) {
	for i := range ids {
		ids[i] = BackendID(binary.NativeEndian.Uint32(b[i*slotBytes:]))
	}
}

func toFlowKey(k FlowKey) bpf.LayoutFlowKey {
	return bpf.LayoutFlowKey{
		Src:   toAddr(k.Src.Addr()),
		Dst:   toAddr(k.Dst.Addr()),
		Sport: toWire(k.Src.Port()),
		Dport: toWire(k.Dst.Port()),
		Proto: uint8(k.Proto),
	}
}

func fromFlowKey(k *bpf.LayoutFlowKey) FlowKey {
	return FlowKey{
		Src:   fromAddrPort(k.Src, k.Sport),
		Dst:   fromAddrPort(k.Dst, k.Dport),
		Proto: Proto(k.Proto),
	}
}

// toFlow makes a complete entry for k: what its rewrite adds to checksums is
// computed as the datapath does (bpf/flow/claim.h); no route is cached.
func toFlow(k FlowKey, f Flow) bpf.LayoutFlow {
	key := toFlowKey(k)
	v := bpf.LayoutFlow{
		Tag:        tupleTag(key),
		Src:        toAddr(f.Src.Addr()),
		Dst:        toAddr(f.Dst.Addr()),
		Sport:      toWire(f.Src.Port()),
		Dport:      toWire(f.Dst.Port()),
		Backend:    uint32(f.Backend),
		Generation: f.Generation,
		Seen:       f.Seen,
		Ack:        f.Ack,
		End:        f.End,
		Began:      f.Began,
		Flags:      uint32(f.Flags),
	}
	v.CsumAddr = fold(addrDiff(key.Src, v.Src) + addrDiff(key.Dst, v.Dst))
	v.CsumPort = fold(portDiff(key.Sport, v.Sport) + portDiff(key.Dport, v.Dport))
	return v
}

// tupleTag is tuple_tag in bpf/flow/entry.h.
func tupleTag(k bpf.LayoutFlowKey) uint32 {
	src, dst := binary.NativeEndian.Uint32(k.Src.B[12:]), binary.NativeEndian.Uint32(k.Dst.B[12:])
	return src ^ (dst<<16 | dst>>16) ^ (uint32(k.Sport)<<16 | uint32(k.Dport))
}

func fromFlow(v *bpf.LayoutFlow) Flow {
	return Flow{
		Src:        fromAddrPort(v.Src, v.Sport),
		Dst:        fromAddrPort(v.Dst, v.Dport),
		Backend:    BackendID(v.Backend),
		Generation: v.Generation,
		Seen:       v.Seen,
		Ack:        v.Ack,
		End:        v.End,
		Began:      v.Began,
		Flags:      FlowFlags(v.Flags),
	}
}

func toHalfFlow(k FlowKey, f Flow) bpf.LayoutHalfFlow {
	return bpf.LayoutHalfFlow{Flow: toFlow(k, f), Since: uint64(f.Since)}
}

func fromHalfFlow(v *bpf.LayoutHalfFlow) Flow {
	f := fromFlow(&v.Flow)
	f.Since = time.Duration(v.Since)
	return f
}

// addrDiff is what replacing from by to adds to an Internet checksum, not yet
// folded (csum_diff_addr in bpf/wire/csum.h).
func addrDiff(from, to bpf.LayoutIpAddr) uint64 {
	var sum uint64
	for i := 0; i < len(from.B); i += 4 {
		sum += uint64(^binary.NativeEndian.Uint32(from.B[i:]))
		sum += uint64(binary.NativeEndian.Uint32(to.B[i:]))
	}
	return sum
}

// portDiff is addrDiff for ports as they are on the wire.
func portDiff(from, to uint16) uint64 { return uint64(^from) + uint64(to) }

// fold brings a sum down to 16 bits with end-around carry (RFC 1071).
func fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

func toRuntime(r Runtime) bpf.LayoutRuntimeValues {
	v := bpf.LayoutRuntimeValues{Snat4: toAddr(r.SNAT4), Snat6: toAddr(r.SNAT6), HostNetns: r.HostNetns, NodeBits: r.NodeBits}
	if p := r.Services4; p.IsValid() {
		a := p.Addr().As4()
		v.Services4Net = binary.NativeEndian.Uint32(a[:])
		v.Services4Mask = binary.NativeEndian.Uint32(net.CIDRMask(p.Bits(), 32))
	}
	if p := r.Services6; p.IsValid() {
		v.Services6Net = toAddr(p.Addr())
		copy(v.Services6Mask.B[:], net.CIDRMask(p.Bits(), 128))
	}
	return v
}

func fromRuntime(v *bpf.LayoutRuntimeValues) Runtime {
	r := Runtime{SNAT4: fromOptionalAddr(v.Snat4), SNAT6: fromOptionalAddr(v.Snat6), HostNetns: v.HostNetns, NodeBits: v.NodeBits}
	var a4, mask4 [4]byte
	binary.NativeEndian.PutUint32(a4[:], v.Services4Net)
	binary.NativeEndian.PutUint32(mask4[:], v.Services4Mask)
	r.Services4 = fromMask(netip.AddrFrom4(a4), mask4[:])
	r.Services6 = fromMask(netip.AddrFrom16(v.Services6Net.B), v.Services6Mask.B[:])
	return r
}

// fromMask is the prefix with that mask, invalid if the mask is 0.
func fromMask(a netip.Addr, mask net.IPMask) netip.Prefix {
	if n, _ := mask.Size(); n > 0 {
		return netip.PrefixFrom(a, n)
	}
	return netip.Prefix{}
}

func toDevice(d Device) bpf.LayoutDevice {
	flags := bit(d.XDPTx, bpf.LayoutDeviceFlagDEVICE_XDP_TX) | bit(d.Away, bpf.LayoutDeviceFlagDEVICE_AWAY) |
		bit(d.Answers, bpf.LayoutDeviceFlagDEVICE_ANSWERS) | bit(d.Stacked, bpf.LayoutDeviceFlagDEVICE_STACKED)
	return bpf.LayoutDevice{
		Lower: d.Lower, VlanId: d.VLAN, Flags: uint16(flags),
		Snat4: toAddr(d.SNAT4), Snat6: toAddr(d.SNAT6),
	}
}

func fromDevice(v *bpf.LayoutDevice) Device {
	has := func(f bpf.LayoutDeviceFlag) bool { return v.Flags&uint16(f) != 0 }
	return Device{
		Lower: v.Lower, VLAN: v.VlanId,
		XDPTx: has(bpf.LayoutDeviceFlagDEVICE_XDP_TX), Away: has(bpf.LayoutDeviceFlagDEVICE_AWAY),
		Answers: has(bpf.LayoutDeviceFlagDEVICE_ANSWERS), Stacked: has(bpf.LayoutDeviceFlagDEVICE_STACKED),
		SNAT4: fromOptionalAddr(v.Snat4), SNAT6: fromOptionalAddr(v.Snat6),
	}
}

func toStation(s Station) bpf.LayoutStationKey {
	return bpf.LayoutStationKey{Ifindex: s.Ifindex, VlanId: s.VLAN, Mac: s.MAC}
}

func fromStation(k *bpf.LayoutStationKey) Station {
	return Station{Ifindex: k.Ifindex, VLAN: k.VlanId, MAC: k.Mac}
}

func toRouteState(s RouteState) bpf.LayoutRouteState {
	return bpf.LayoutRouteState{
		Changed: s.Changed, Until: s.Until,
		Flags: uint32(bit(s.Multipath, bpf.LayoutRouteStateFlagROUTES_MULTIPATH) | bit(s.BySource, bpf.LayoutRouteStateFlagROUTES_BY_SOURCE) |
			bit(s.Secured, bpf.LayoutRouteStateFlagROUTES_SECURED)),
	}
}

func fromRouteState(v *bpf.LayoutRouteState) RouteState {
	return RouteState{
		Changed: v.Changed, Until: v.Until,
		Multipath: v.Flags&uint32(bpf.LayoutRouteStateFlagROUTES_MULTIPATH) != 0,
		BySource:  v.Flags&uint32(bpf.LayoutRouteStateFlagROUTES_BY_SOURCE) != 0,
		Secured:   v.Flags&uint32(bpf.LayoutRouteStateFlagROUTES_SECURED) != 0,
	}
}

func toNeighbourKey(h NextHop) bpf.LayoutNeighbourKey {
	return bpf.LayoutNeighbourKey{Addr: toAddr(h.Addr), Ifindex: h.Ifindex}
}

func fromNeighbourKey(k *bpf.LayoutNeighbourKey) NextHop {
	return NextHop{Ifindex: k.Ifindex, Addr: fromAddr(k.Addr)}
}

// toPrefix is a prefix as LPM keys hold it: the bits of an address in its
// 16-byte form, behind fixed ones, the last of which tell the family.
func toPrefix(p netip.Prefix, fixed int) (bits, v4 uint32, addr bpf.LayoutIpAddr) {
	n := p.Bits() + fixed
	if p.Addr().Is4() {
		n, v4 = n+v4MappedBits, 1
	}
	return uint32(n), v4, toAddr(p.Addr())
}

// v4MappedBits is the length of the prefix that all v4-mapped addresses share.
const v4MappedBits = 96

// fromPrefix is the inverse of toPrefix.
func fromPrefix(bits uint32, addr bpf.LayoutIpAddr, fixed int) netip.Prefix {
	a, n := fromAddr(addr), int(bits)-fixed
	if a.Is4() {
		n -= v4MappedBits
	}
	return netip.PrefixFrom(a, n)
}

func toSourceRangeKey(r SourceRange) bpf.LayoutSourceRangeKey {
	k := bpf.LayoutSourceRangeKey{ServicePort: uint32(r.ServicePort)}
	k.Prefix, k.V4, k.Addr = toPrefix(r.Prefix, 64)
	return k
}

func fromSourceRangeKey(k *bpf.LayoutSourceRangeKey) SourceRange {
	return SourceRange{ServicePort: ServicePortID(k.ServicePort), Prefix: fromPrefix(k.Prefix, k.Addr, 64)}
}

// toCIDRKey is a key of service_cidrs and secured.
func toCIDRKey(p netip.Prefix) bpf.LayoutCidrKey {
	var k bpf.LayoutCidrKey
	k.Prefix, k.V4, k.Addr = toPrefix(p, 32)
	return k
}

func fromCIDRKey(k *bpf.LayoutCidrKey) netip.Prefix { return fromPrefix(k.Prefix, k.Addr, 32) }

func toAffinityKey(k AffinityKey) bpf.LayoutAffinityKey {
	return bpf.LayoutAffinityKey{Client: toAddr(k.Client), ServicePort: uint32(k.ServicePort)}
}

func fromAffinityKey(k *bpf.LayoutAffinityKey) AffinityKey {
	return AffinityKey{Client: fromAddr(k.Client), ServicePort: ServicePortID(k.ServicePort)}
}

func toAffinity(a Affinity) bpf.LayoutAffinityValue {
	return bpf.LayoutAffinityValue{
		Backend: uint32(a.Backend), Generation: a.Generation, Used: uint32(a.Used / time.Second),
	}
}

func fromAffinity(v *bpf.LayoutAffinityValue) Affinity {
	return Affinity{
		Backend: BackendID(v.Backend), Generation: v.Generation, Used: time.Duration(v.Used) * time.Second,
	}
}

func toSocketKey(k SocketKey) bpf.LayoutSocketKey {
	return bpf.LayoutSocketKey{
		Cookie: k.Cookie, Addr: toAddr(k.Addr.Addr()), Port: toWire(k.Addr.Port()), Proto: uint8(k.Proto), Way: uint8(k.Way),
	}
}

func fromSocketKey(k *bpf.LayoutSocketKey) SocketKey {
	return SocketKey{Cookie: k.Cookie, Addr: fromAddrPort(k.Addr, k.Port), Proto: Proto(k.Proto), Way: SocketWay(k.Way)}
}

func toSocketPeer(p SocketPeer) bpf.LayoutSocketPeer {
	return bpf.LayoutSocketPeer{
		Addr: toAddr(p.Addr.Addr()), Port: toWire(p.Addr.Port()), Backend: uint32(p.Backend),
		Generation: p.Generation, Seen: p.Seen, Netns: p.Netns,
	}
}

func fromSocketPeer(v *bpf.LayoutSocketPeer) SocketPeer {
	return SocketPeer{
		Addr: fromAddrPort(v.Addr, v.Port), Backend: BackendID(v.Backend),
		Generation: v.Generation, Seen: v.Seen, Netns: v.Netns,
	}
}

// sumCounts adds up what the CPUs have counted.
func sumCounts(cpus []bpf.LayoutBackendCounts) BackendCounts {
	var out BackendCounts
	for i := range cpus {
		c := &cpus[i]
		out.Opened += c.Opened
		out.Closed += c.Closed
		out.SocketOpened += c.SocketOpened
		out.SocketClosed += c.SocketClosed
		out.Packets += c.Packets
		out.Bytes += c.Bytes
		out.RxPackets += c.RxPackets
		out.RxBytes += c.RxBytes
		for b, n := range c.Handshake {
			out.Handshake[b] += uint64(n)
		}
	}
	return out
}
