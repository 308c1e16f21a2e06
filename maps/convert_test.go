package maps

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/bpf"
)

// compareAddrs lets cmp look at netip types.
var compareAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// wire is v as it lies in a map.
func wire(t *testing.T, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func mapped(t *testing.T, s string) []byte {
	t.Helper()
	b := netip.MustParseAddr(s).As16()
	return b[:]
}

func u32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func u64(n uint64) []byte { return binary.NativeEndian.AppendUint64(nil, n) }

// The layouts written out by hand: a mistake made in both directions of a
// conversion would pass any round trip.
func TestValuesHaveTheLayoutOfTheDatapath(t *testing.T) {
	v4 := netip.MustParseAddrPort("10.0.0.1:80")
	v6 := netip.MustParseAddrPort("[2001:db8::1]:443")
	key := FlowKey{Src: v4, Dst: v6, Proto: UDP}
	tests := []struct {
		name string
		got  any
		want [][]byte
	}{
		{
			name: "an IPv4 frontend has a v4-mapped address and a big-endian port",
			got:  toFrontendKey(Frontend{Addr: v4.Addr(), Port: 0x1234, Proto: TCP}),
			want: [][]byte{bytes.Repeat([]byte{0}, 10), {0xff, 0xff, 10, 0, 0, 1, 0x12, 0x34, 6, 0}},
		},
		{
			name: "an IPv6 frontend has its address",
			got:  toFrontendKey(Frontend{Addr: v6.Addr(), Port: 443, Proto: UDP}),
			want: [][]byte{mapped(t, "2001:db8::1"), {0x01, 0xbb, 17, 0}},
		},
		{
			name: "a frontend for any address of the node says so",
			got:  toFrontendKey(Frontend{Addr: netip.IPv4Unspecified(), Port: 80, Proto: TCP}),
			want: [][]byte{mapped(t, "0.0.0.0"), {0, 80, 6, 1}},
		},
		{
			name: "a service has host-order numbers",
			got: toFrontend(Service{ServicePort: 7, ExternalLocal: true, Affinity: 3 * time.Hour,
				Cluster: Table{Offset: 1, Length: 251}, Local: Table{Offset: 252, Length: 3}}),
			want: [][]byte{u32(7), u32(1), u32(1), u32(251), u32(252), u32(3), u32(10800)},
		},
		{
			name: "an IPv4 source range counts the bits before its address",
			got:  toSourceRangeKey(SourceRange{ServicePort: 7, Prefix: netip.MustParsePrefix("10.0.0.0/8")}),
			want: [][]byte{u32(64 + 96 + 8), u32(7), u32(1), mapped(t, "10.0.0.0")},
		},
		{
			name: "an IPv6 range of pods or services has its own length",
			got:  toCIDRKey(netip.MustParsePrefix("2001:db8::/33")),
			want: [][]byte{u32(32 + 33), u32(0), mapped(t, "2001:db8::")},
		},
		{
			name: "affinity is counted in seconds",
			got:  toAffinity(Affinity{Backend: 5, Generation: 2, Used: 90 * time.Second}),
			want: [][]byte{u32(5), u32(2), u32(90)},
		},
		{
			name: "a socket has its cookie first, and the way last",
			got:  toSocketKey(SocketKey{Cookie: 9, Addr: v6, Proto: UDP, Way: SocketBackend}),
			want: [][]byte{u64(9), mapped(t, "2001:db8::1"), {1, 187, 17, 1}, u32(0)},
		},
		{
			name: "the peer of a socket has its namespace last",
			got:  toSocketPeer(SocketPeer{Addr: v4, Backend: 5, Generation: 2, Seen: 77, Netns: 3}),
			want: [][]byte{mapped(t, "10.0.0.1"), {0, 80, 0, 0}, u32(5), u32(2), u32(77), u64(3)},
		},
		{
			name: "a backend has state and flags in a byte each",
			got:  toBackend(Backend{Addr: v4, State: Draining, Local: true, Generation: 9, ServicePort: 7}),
			want: [][]byte{mapped(t, "10.0.0.1"), {0, 80, 2, 1}, u32(9), u32(7)},
		},
		{
			name: "a flow key has both ends of the packet",
			got:  toFlowKey(key),
			want: [][]byte{mapped(t, "10.0.0.1"), mapped(t, "2001:db8::1"), {0, 80, 1, 187, 17, 0, 0, 0}},
		},
		{
			name: "names are padded with NUL",
			got:  toServicePort(ServicePort{Namespace: "ns", Service: "svc", Proto: TCP}),
			want: [][]byte{
				[]byte("ns" + strings.Repeat("\x00", 62) + "svc" + strings.Repeat("\x00", 61+64)), {6, 0, 0, 0},
			},
		},
		{
			name: "an absent node address is all zero",
			got:  toRuntime(Runtime{SNAT4: v4.Addr(), HostNetns: 7}),
			want: [][]byte{
				mapped(t, "10.0.0.1"), bytes.Repeat([]byte{0}, 16), binary.NativeEndian.AppendUint64(nil, 7),
				bytes.Repeat([]byte{0}, 8+8+32),
			},
		},
		{
			name: "a span of services has a mask",
			got:  toRuntime(Runtime{Services4: netip.MustParsePrefix("10.96.0.0/12"), Services6: netip.MustParsePrefix("fd00::/9")}),
			want: [][]byte{
				bytes.Repeat([]byte{0}, 48), {10, 96, 0, 0, 255, 240, 0, 0},
				mapped(t, "fd00::"), {0xff, 0x80}, bytes.Repeat([]byte{0}, 14),
			},
		},
		{
			name: "a device has its tag in host order",
			got:  toDevice(Device{Lower: 3, VLAN: 100, XDPTx: true, Away: true, SNAT4: netip.MustParseAddr("192.0.2.1")}),
			want: [][]byte{u32(3), binary.NativeEndian.AppendUint16(nil, 100), binary.NativeEndian.AppendUint16(nil, 3),
				mapped(t, "192.0.2.1"), bytes.Repeat([]byte{0}, 16)},
		},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(bytes.Join(tc.want, nil), wire(t, tc.got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// addrOf makes an address of 4 or 16 bytes of b, never a v4-mapped one.
func addrOf(b []byte, v6 bool) netip.Addr {
	var a [16]byte
	copy(a[:], b)
	if v6 && !netip.AddrFrom16(a).Is4In6() {
		return netip.AddrFrom16(a)
	}
	return netip.AddrFrom4([4]byte(a[:4]))
}

func FuzzFrontendsComeBackAsTheyWentIn(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1}, false, uint16(80), uint8(6), uint32(1), uint32(251), uint8(1))
	f.Add([]byte{0x20, 1, 0xd, 0xb8}, true, uint16(0xff00), uint8(17), uint32(1<<31), uint32(0), uint8(6))
	f.Add(bytes.Repeat([]byte{0xff}, 16), true, uint16(1), uint8(6), uint32(0), uint32(1<<32-1), uint8(8))
	f.Fuzz(func(t *testing.T, addr []byte, v6 bool, port uint16, proto uint8, a, b uint32, flags uint8) {
		front := Frontend{Addr: addrOf(addr, v6), Port: port, Proto: Proto(proto)}
		key := toFrontendKey(front)
		if got := fromFrontendKey(&key); got != front {
			t.Errorf("frontend %v came back as %v", front, got)
		}
		svc := Service{ServicePort: ServicePortID(a ^ b), ExternalLocal: flags&1 != 0,
			InternalLocal: flags&2 != 0, Restricted: flags&4 != 0, HasEndpoints: flags&8 != 0,
			PodsIn: flags&16 != 0, PodsOut: flags&32 != 0, NodePort: flags&64 != 0, Packet: flags&128 != 0,
			Affinity: time.Duration(a) * time.Second,
			Cluster:  Table{Offset: a, Length: b}, Local: Table{Offset: b, Length: ^a}}
		value := toFrontend(svc)
		if got := fromFrontend(&value); got != svc {
			t.Errorf("service %v came back as %v", svc, got)
		}
	})
}

func FuzzSocketsComeBackAsTheyWentIn(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1}, false, uint16(53), uint8(17), uint8(1), uint64(1<<63), uint32(5))
	f.Add([]byte{0xfd, 0}, true, uint16(0x0102), uint8(6), uint8(0), uint64(7), uint32(1<<32-1))
	f.Fuzz(func(t *testing.T, addr []byte, v6 bool, port uint16, proto, way uint8, n uint64, m uint32) {
		at := netip.AddrPortFrom(addrOf(addr, v6), port)
		k := SocketKey{Cookie: n, Addr: at, Proto: Proto(proto), Way: SocketWay(way)}
		key := toSocketKey(k)
		if got := fromSocketKey(&key); got != k {
			t.Errorf("socket %v came back as %v", k, got)
		}
		p := SocketPeer{Addr: at, Backend: BackendID(m), Generation: ^m, Seen: m / 2, Netns: ^n}
		value := toSocketPeer(p)
		if got := fromSocketPeer(&value); got != p {
			t.Errorf("peer %v came back as %v", p, got)
		}
	})
}

func FuzzBackendsComeBackAsTheyWentIn(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1}, false, uint16(8080), uint8(1), true, uint32(1), uint32(2))
	f.Add([]byte{0xfd, 0}, true, uint16(0x0102), uint8(3), false, uint32(1<<32-1), uint32(0))
	f.Fuzz(func(t *testing.T, addr []byte, v6 bool, port uint16, state uint8, local bool, gen, sp uint32) {
		want := Backend{Addr: netip.AddrPortFrom(addrOf(addr, v6), port), State: State(state),
			Local: local, InCluster: gen&1 != 0, InLocal: gen&2 != 0, Unserving: gen&4 != 0, Generation: gen, ServicePort: ServicePortID(sp)}
		value := toBackend(want)
		if got := fromBackend(&value); got != want {
			t.Errorf("backend %v came back as %v", want, got)
		}
	})
}

func FuzzRangesComeBackAsTheyWentIn(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1}, false, uint8(8), uint32(7))
	f.Add([]byte{0x20, 1, 0xd, 0xb8}, true, uint8(128), uint32(0))
	f.Fuzz(func(t *testing.T, addr []byte, v6 bool, bits uint8, sp uint32) {
		a := addrOf(addr, v6)
		p := netip.PrefixFrom(a, int(bits)%(a.BitLen()+1)).Masked()
		if checkPrefix(p) != nil {
			t.Skip("masked to something else than an address of its family")
		}
		want := SourceRange{ServicePort: ServicePortID(sp), Prefix: p}
		key := toSourceRangeKey(want)
		if got := fromSourceRangeKey(&key); got != want {
			t.Errorf("source range %v came back as %v", want, got)
		}
		pod := toCIDRKey(p)
		if got := fromCIDRKey(&pod); got != p {
			t.Errorf("pod range %v came back as %v", p, got)
		}
	})
}

func FuzzSpansOfServicesComeBackAsTheyWentIn(f *testing.F) {
	f.Add([]byte{10, 96, 0, 0}, uint8(12), []byte{0xfd}, uint8(108))
	f.Add([]byte{}, uint8(32), []byte{}, uint8(128))
	f.Fuzz(func(t *testing.T, a4 []byte, bits4 uint8, a6 []byte, bits6 uint8) {
		want := Runtime{
			Services4: netip.PrefixFrom(addrOf(a4, false), int(bits4)%33).Masked(),
			Services6: netip.PrefixFrom(addrOf(a6, true), int(bits6)%129).Masked(),
		}
		if want.Validate() != nil {
			t.Skip("no span, or not one of its family")
		}
		value := toRuntime(want)
		if got := fromRuntime(&value); got != want {
			t.Errorf("runtime values %v came back as %v", want, got)
		}
	})
}

func FuzzFlowsComeBackAsTheyWentIn(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1}, []byte{10, 0, 0, 2}, []byte{192, 0, 2, 1}, false, uint16(4000), uint16(80), uint32(3), int64(5))
	f.Add([]byte{0xfe, 0x80}, []byte{0xff}, []byte{0x20, 1}, true, uint16(1), uint16(0xff00), uint32(1<<32-1), int64(0))
	f.Fuzz(func(t *testing.T, a, b, c []byte, v6 bool, sport, dport uint16, n uint32, since int64) {
		key := FlowKey{Src: netip.AddrPortFrom(addrOf(a, v6), sport),
			Dst: netip.AddrPortFrom(addrOf(b, v6), dport), Proto: Proto(n)}
		want := Flow{Src: netip.AddrPortFrom(addrOf(c, v6), ^sport), Dst: key.Src, Backend: BackendID(n),
			Generation: ^n, Seen: n * 3, Flags: FlowFlags(n >> 8), Since: time.Duration(since &^ (-1 << 63))}
		k, half := toFlowKey(key), toHalfFlow(key, want)
		if got := fromFlowKey(&k); got != key {
			t.Errorf("flow key %v came back as %v", key, got)
		}
		if got := fromHalfFlow(&half); got != want {
			t.Errorf("half-open flow %v came back as %v", want, got)
		}
		want.Since = 0
		value := toFlow(key, want)
		if got := fromFlow(&value); got != want {
			t.Errorf("flow %v came back as %v", want, got)
		}
	})
}

func FuzzValidServicePortsComeBackAsTheyWentIn(f *testing.F) {
	f.Add("default", "web", "http", uint8(6))
	f.Add(strings.Repeat("n", 63), strings.Repeat("s", 63), "", uint8(17))
	f.Add(strings.Repeat("n", 64), "a\x00b", "", uint8(17))
	f.Fuzz(func(t *testing.T, namespace, service, port string, proto uint8) {
		want := ServicePort{Namespace: namespace, Service: service, Port: port, Proto: Proto(proto)}
		if want.Validate() != nil {
			return
		}
		value := toServicePort(want)
		if got := fromServicePort(&value); got != want {
			t.Errorf("service port %v came back as %v", want, got)
		}
	})
}

func FuzzValidRuntimeValuesComeBackAsTheyWentIn(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1}, []byte{0x20, 1}, uint32(2), uint16(100), true)
	f.Add([]byte{}, []byte{}, uint32(0), uint16(0), false)
	f.Fuzz(func(t *testing.T, a, b []byte, lower uint32, vlan uint16, tx bool) {
		want := Runtime{SNAT4: addrOf(a, false), SNAT6: addrOf(b, true)}
		if len(a) == 0 {
			want.SNAT4 = netip.Addr{}
		}
		if want.Validate() == nil {
			value := toRuntime(want)
			if got := fromRuntime(&value); got != want {
				t.Errorf("runtime values %v came back as %v", want, got)
			}
		}
		device := Device{Lower: lower, VLAN: vlan, XDPTx: tx}
		value := toDevice(device)
		if got := fromDevice(&value); got != device {
			t.Errorf("device %v came back as %v", device, got)
		}
	})
}

// sum16 is an Internet checksum's sum over b, not complemented.
func sum16(b ...[]byte) uint16 {
	var sum uint64
	for _, part := range b {
		for i := 0; i < len(part); i += 2 {
			sum += uint64(binary.NativeEndian.Uint16(part[i:]))
		}
	}
	return fold(sum)
}

// equalSums compares in ones' complement, where 0 and 0xffff are the same.
func equalSums(a, b uint16) bool { return a == b || a^b == 0xffff && (a == 0 || b == 0) }

func FuzzTheChecksumDifferenceOfAFlowIsThatOfItsRewrite(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1}, []byte{10, 96, 0, 1}, []byte{10, 0, 1, 7}, false, uint16(4000), uint16(80), uint16(8080))
	f.Add([]byte{0x20, 1, 0xd, 0xb8}, []byte{0xfd}, []byte{0xfd, 1}, true, uint16(0xffff), uint16(1), uint16(0))
	f.Fuzz(func(t *testing.T, client, vip, pod []byte, v6 bool, cport, vport, pport uint16) {
		key := FlowKey{Src: netip.AddrPortFrom(addrOf(client, v6), cport),
			Dst: netip.AddrPortFrom(addrOf(vip, v6), vport), Proto: TCP}
		flow := Flow{Src: key.Src, Dst: netip.AddrPortFrom(addrOf(pod, v6), pport)}
		k, v := toFlowKey(key), toFlow(key, flow)
		before, after := sum16(k.Src.B[:], k.Dst.B[:]), sum16(v.Src.B[:], v.Dst.B[:])
		if got := fold(uint64(before) + uint64(v.CsumAddr)); !equalSums(got, after) {
			t.Errorf("addresses: %#x + %#x is %#x, want %#x", before, v.CsumAddr, got, after)
		}
		before, after = fold(uint64(k.Sport)+uint64(k.Dport)), fold(uint64(v.Sport)+uint64(v.Dport))
		if got := fold(uint64(before) + uint64(v.CsumPort)); !equalSums(got, after) {
			t.Errorf("ports: %#x + %#x is %#x, want %#x", before, v.CsumPort, got, after)
		}
	})
}

func TestCountsAreSummedOverCPUs(t *testing.T) {
	a := bpf.LayoutBackendCounts{Opened: 1, Closed: 2, SocketOpened: 7, SocketClosed: 8, Packets: 3, Bytes: 4, RxPackets: 5, RxBytes: 6}
	a.Handshake[0], a.Handshake[LatencyBuckets-1] = 1<<32-1, 7
	b := bpf.LayoutBackendCounts{Opened: 10, Closed: 20, SocketOpened: 70, SocketClosed: 80, Packets: 30, Bytes: 40, RxPackets: 50, RxBytes: 60}
	b.Handshake[0] = 2
	want := BackendCounts{Opened: 11, Closed: 22, SocketOpened: 77, SocketClosed: 88, Packets: 33, Bytes: 44, RxPackets: 55, RxBytes: 66}
	want.Handshake[0], want.Handshake[LatencyBuckets-1] = 1<<32+1, 7
	if diff := cmp.Diff(want, sumCounts([]bpf.LayoutBackendCounts{a, b})); diff != "" {
		t.Error(diff)
	}
}
