package fuzz

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// seeds are frames of every shape the parser tells apart.
func seeds(tb testing.TB) [][]byte {
	tb.Helper()
	var all [][]byte
	for _, s := range talk() {
		all = append(all, bytesOf(tb, s))
	}
	for _, f := range families() {
		for _, proto := range protos {
			for _, remote := range []bool{false, true} {
				all = append(all, shapes(tb, f.dialogue(proto, strangerPort, remote))...)
			}
			all = append(all, strays(tb, f.dialogue(proto, strangerPort, true))...)
		}
	}
	return slices.Concat(all, misshapen(tb), edges(tb))
}

// talk is packets of both sides of connections: known, and just begun.
func talk() []packet.Spec {
	var all []packet.Spec
	for _, d := range dialogues() {
		for _, flags := range []packet.Flags{packet.SYN, packet.SYN | packet.ACK, packet.ACK, packet.FIN | packet.ACK, packet.RST} {
			all = append(all, d.spec(false, flags), d.spec(true, flags))
			if d.proto == maps.UDP {
				break
			}
		}
	}
	for _, f := range families() {
		for _, proto := range protos {
			for _, remote := range []bool{false, true} {
				d := f.dialogue(proto, strangerPort, remote)
				all = append(all, d.spec(false, packet.SYN), d.spec(false, packet.ACK), d.spec(true, packet.ACK))
			}
			d := f.dialogue(proto, strangerPort, true)
			for _, port := range []uint16{emptyPort, emptyPort + 1} {
				d.vip = netip.AddrPortFrom(f.vip, port)
				all = append(all, d.spec(false, packet.SYN))
			}
		}
	}
	return all
}

func loopbackOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// shapes are variants of the first packet of d.
func shapes(tb testing.TB, d dialogue) [][]byte {
	tb.Helper()
	var all [][]byte
	for _, edit := range []func(*packet.Spec){
		func(s *packet.Spec) { s.VLANs = []uint16{100} },
		func(s *packet.Spec) { s.VLANs = []uint16{7, 100} },
		func(s *packet.Spec) { s.VLANs = []uint16{7, 8, 100} },
		func(s *packet.Spec) { s.TTL = 1 },
		func(s *packet.Spec) { s.TTL, s.VLANs = 1, []uint16{100} },
		func(s *packet.Spec) { s.TTL, s.IPOptions, s.HopByHop = 1, []byte{7, 4, 4, 0}, true },
		func(s *packet.Spec) { s.IPOptions, s.HopByHop = []byte{7, 8, 4, 0, 0, 0, 0, 0}, true },
		func(s *packet.Spec) { s.DstOptions = 4 },
		func(s *packet.Spec) { s.DstOptions = 5 },
		func(s *packet.Spec) { s.HopByHop, s.DstOptions = true, 3 },
		func(s *packet.Spec) { s.NoChecksum = s.Proto == maps.UDP },
		func(s *packet.Spec) { s.Payload = nil },
		func(s *packet.Spec) { s.Payload = make([]byte, 1600) },
		func(s *packet.Spec) { s.DstMAC = rig.OtherMAC },
		func(s *packet.Spec) { s.Src = netip.AddrPortFrom(loopbackOf(s.Src.Addr()), 1) },
	} {
		s := d.spec(false, packet.SYN)
		edit(&s)
		all = append(all, bytesOf(tb, s))
	}
	return append(all, wrong(tb, d)...)
}

// strays are packets in the middle of d, of which nothing is known.
func strays(tb testing.TB, d dialogue) [][]byte {
	tb.Helper()
	var all [][]byte
	for _, flags := range []packet.Flags{0, packet.ACK, packet.FIN, packet.FIN | packet.ACK, packet.RST} {
		s := d.spec(false, flags)
		all = append(all, bytesOf(tb, s), append(bytesOf(tb, s), 1, 2, 3))
		s.IPOptions, s.HopByHop = []byte{7, 4, 4, 0}, true
		all = append(all, bytesOf(tb, s))
		s.VLANs = []uint16{100}
		all = append(all, bytesOf(tb, s))
	}
	if d.proto != maps.SCTP {
		return all
	}
	s := d.spec(false, packet.ACK)
	for kind := packet.Chunk(0); kind < 16; kind++ {
		for _, cause := range []string{"", "\x00\x03\x00\x04", "\x00\x06\x00\x04"} {
			s.Chunk, s.Payload = kind, []byte(cause)
			all = append(all, bytesOf(tb, s))
		}
	}
	return all
}

// wrong are variants that no serializer makes; offsets are those of plain headers.
func wrong(tb testing.TB, d dialogue) [][]byte {
	tb.Helper()
	plain := bytesOf(tb, d.spec(false, packet.SYN))
	p, v := parse(plain)
	if v != maps.VerdictNone {
		tb.Fatalf("a plain packet is %s", v)
	}
	length := p.l3 + 2
	if !p.v4 {
		length = p.l3 + 4
	}
	var all [][]byte
	for _, edit := range []func([]byte){
		func(b []byte) { binary.BigEndian.PutUint16(b[length:], 0) },
		func(b []byte) { binary.BigEndian.PutUint16(b[length:], 0xffff) },
		func(b []byte) { binary.BigEndian.PutUint16(b[length:], 1500) },
		func(b []byte) { b[p.l3] = 0x55 },
		func(b []byte) { b[p.l3] = b[p.l3]&0xf0 | 0xf },
		func(b []byte) { b[p.l3+6] = fragment }, // of IPv4: one in the middle
		func(b []byte) { b[p.l3+6] = 0x20 },     // of IPv4: the first one
		func(b []byte) { b[p.l3+7] = 1 },        // of IPv4: the last one
		func(b []byte) { b[p.check()]++ },
		func(b []byte) { b[p.check()], b[p.check()+1] = 0xff, 0xff },
		func(b []byte) { copy(b[p.check():], []byte{0, 0, 0, 0}) }, // of TCP: and of the urgent pointer
		func(b []byte) { b[p.l3+6], b[p.l4] = routing, byte(d.proto) },
		func(b []byte) { b[p.l3+9], b[p.l3+6] = icmp4, icmp6 },
		func(b []byte) { b[12], b[13] = 8, 6 }, // ARP
		func(b []byte) { b[12], b[13] = 0x88, 0xa8 },
	} {
		b := slices.Clone(plain)
		edit(b)
		all = append(all, b)
	}
	for _, end := range []int{p.l3 + 1, p.l4 - 1, p.l4 + udpLen - 1, p.l4 + udpLen, p.l4 + sctpLen - 1, p.l4 + sctpLen, p.l4 + tcpLen} {
		all = append(all, plain[:min(end, len(plain))])
	}
	return append(all, append(slices.Clone(plain), make([]byte, 20)...))
}

// misshapen are frames that are hardly packets.
func misshapen(tb testing.TB) [][]byte {
	tb.Helper()
	tag := []byte{0x81, 0, 0, 100}
	macs := make([]byte, 12)
	return [][]byte{
		{}, macs, slices.Concat(macs, tag[:2]), slices.Concat(macs, tag, tag[:3]),
		slices.Concat(macs, tag, tag, tag), slices.Concat(macs, []byte{8, 0}), slices.Concat(macs, []byte{0x86, 0xdd}),
		mapped(tb),
	}
}

// mapped is an IPv6 packet whose addresses are those of an IPv4 connection, as
// they stand in the maps.
func mapped(tb testing.TB) []byte {
	tb.Helper()
	s := families()[1].dialogue(maps.UDP, establishedPort, false).spec(false, 0)
	b := bytesOf(tb, s)
	f := families()[0]
	client, vip := f.client.As16(), f.vip.As16()
	copy(b[etherLen+8:], client[:])
	copy(b[etherLen+24:], vip[:])
	return b
}

func bytesOf(tb testing.TB, s packet.Spec) []byte {
	tb.Helper()
	b, err := s.Bytes()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}
