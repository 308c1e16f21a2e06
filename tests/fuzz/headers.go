package fuzz

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// What is followed before a packet is left alone.
const (
	maxTags       = 2
	maxExtensions = 4
)

// Bytes of headers without options.
const (
	etherLen = 14
	ipv4Len  = 20
	ipv6Len  = 40
	tcpLen   = 20
	udpLen   = 8
	sctpLen  = 16 // with the head of a chunk
)

// Numbers of protocols and extension headers (IANA "Protocol Numbers").
const (
	hopByHop    = 0
	icmp4       = 1
	routing     = 43
	fragment    = 44
	icmp6       = 58
	destination = 60
)

// Types of chunks (RFC 9260, 3.2).
const (
	initChunk    = 1
	initAckChunk = 2
)

// headers is where things stand in a frame that was understood.
type headers struct {
	key   maps.FlowKey
	v4    bool
	tags  int
	l3    int // offsets in the frame
	l4    int
	total int  // layer 3 bytes, as the header says; the frame may have more or fewer
	flags byte // of TCP; of SCTP the one that means the same
	first bool // the first fragment of a datagram is taken for a packet
}

// parse reads the headers of frame. The verdict is VerdictNone if it could,
// else the first reason not to, in the order in which headers follow each other;
// within an IPv4 header: its lengths, its protocol, whether it is a fragment.
func parse(frame []byte) (headers, maps.Verdict) {
	var p headers
	v := p.read(frame)
	return p, v
}

// parseFirst is parse for a frame that may be the first fragment of a datagram.
func parseFirst(frame []byte) (headers, maps.Verdict) {
	p := headers{first: true}
	v := p.read(frame)
	return p, v
}

func (p *headers) read(frame []byte) maps.Verdict {
	etherType, v := p.link(frame)
	if v != maps.VerdictNone {
		return v
	}
	var proto byte
	switch etherType {
	case 0x0800:
		proto, v = p.ipv4(frame[p.l3:])
	case 0x86dd:
		proto, v = p.ipv6(frame[p.l3:])
	default:
		v = maps.VerdictNotIP
	}
	if v != maps.VerdictNone {
		return v
	}
	return p.transport(frame, maps.Proto(proto))
}

// link reads Ethernet and up to two VLAN tags.
func (p *headers) link(frame []byte) (etherType uint16, v maps.Verdict) {
	if len(frame) < etherLen {
		return 0, maps.VerdictNotIP
	}
	p.l3 = etherLen
	for {
		etherType = binary.BigEndian.Uint16(frame[p.l3-2:])
		if etherType != 0x8100 && etherType != 0x88a8 || p.tags == maxTags {
			return etherType, maps.VerdictNone
		}
		if len(frame) < p.l3+4 {
			return 0, maps.VerdictMalformed
		}
		p.l3 += 4
		p.tags++
	}
}

func (p *headers) ipv4(ip []byte) (proto byte, v maps.Verdict) {
	if len(ip) < ipv4Len || ip[0]>>4 != 4 {
		return 0, maps.VerdictMalformed
	}
	header := int(ip[0]&0xf) * 4
	p.total = int(binary.BigEndian.Uint16(ip[2:]))
	if header < ipv4Len || p.total < header {
		return 0, maps.VerdictMalformed
	}
	if !balanced(ip[9]) {
		return 0, maps.VerdictNotL4
	}
	more, offset := ip[6]&0x20 != 0, binary.BigEndian.Uint16(ip[6:])&0x1fff
	if more && !p.first || offset != 0 {
		return 0, maps.VerdictFragment
	}
	p.v4, p.l4 = true, p.l3+header
	p.addresses(ip[12:16], ip[16:20])
	return ip[9], maps.VerdictNone
}

func (p *headers) ipv6(ip []byte) (proto byte, v maps.Verdict) {
	if len(ip) < ipv6Len || ip[0]>>4 != 6 {
		return 0, maps.VerdictMalformed
	}
	p.total = min(ipv6Len+int(binary.BigEndian.Uint16(ip[4:])), 0xffff) // more is not counted
	p.addresses(ip[8:24], ip[24:40])
	if p.key.Src.Addr().Is4In6() || p.key.Dst.Addr().Is4In6() {
		return 0, maps.VerdictMalformed // in maps these are IPv4
	}
	proto, at, v := extensions(ip)
	if v == maps.VerdictNone && proto == fragment && p.first {
		if len(ip) < at+8 || binary.BigEndian.Uint16(ip[at+2:])&^7 != 0 {
			return 0, maps.VerdictFragment
		}
		proto, at = ip[at], at+8
	}
	switch {
	case v != maps.VerdictNone:
		return 0, v
	case proto == fragment:
		return 0, maps.VerdictFragment
	case !balanced(proto):
		return 0, maps.VerdictNotL4
	case at > p.total:
		return 0, maps.VerdictMalformed
	}
	p.l4 = p.l3 + at
	return proto, maps.VerdictNone
}

// extensions follows the chain and returns the first header that is none of it
// and where that begins.
func extensions(ip []byte) (next byte, at int, v maps.Verdict) {
	next, at = ip[6], ipv6Len
	for n := 0; next == hopByHop || next == routing || next == destination; n++ {
		if n == maxExtensions {
			return 0, 0, maps.VerdictExtHeaders
		}
		if len(ip) < at+4 {
			return 0, 0, maps.VerdictMalformed
		}
		// Segments left: the destination is not the final one yet.
		if next == routing && ip[at+3] != 0 {
			return 0, 0, maps.VerdictExtHeaders
		}
		next, at = ip[at], at+8+8*int(ip[at+1])
	}
	return next, at, maps.VerdictNone
}

func balanced(proto byte) bool {
	return slices.Contains([]maps.Proto{maps.TCP, maps.UDP, maps.SCTP}, maps.Proto(proto))
}

func (p *headers) addresses(src, dst []byte) {
	s, _ := netip.AddrFromSlice(src)
	d, _ := netip.AddrFromSlice(dst)
	p.key.Src, p.key.Dst = netip.AddrPortFrom(s, 0), netip.AddrPortFrom(d, 0)
}

func (p *headers) transport(frame []byte, proto maps.Proto) maps.Verdict {
	need := map[maps.Proto]int{maps.TCP: tcpLen, maps.UDP: udpLen, maps.SCTP: sctpLen}[proto]
	if len(frame) < p.l4+need || p.l3+p.total < p.l4+need {
		return maps.VerdictMalformed
	}
	l4 := frame[p.l4:]
	p.key.Proto = proto
	p.key.Src = netip.AddrPortFrom(p.key.Src.Addr(), binary.BigEndian.Uint16(l4))
	p.key.Dst = netip.AddrPortFrom(p.key.Dst.Addr(), binary.BigEndian.Uint16(l4[2:]))
	switch {
	case proto == maps.TCP:
		p.flags = l4[13]
	case proto == maps.SCTP && l4[12] == initChunk && binary.BigEndian.Uint32(l4[4:]) == 0:
		p.flags = byte(packet.SYN)
	case proto == maps.SCTP && l4[12] == initAckChunk:
		p.flags = byte(packet.SYN | packet.ACK)
	}
	return maps.VerdictNone
}

// ttl is where TTL or hop limit stands.
func (p *headers) ttl() int {
	if p.v4 {
		return p.l3 + 8
	}
	return p.l3 + 7
}

// check is where the checksum of the transport header stands.
func (p *headers) check() int {
	return p.l4 + map[maps.Proto]int{maps.TCP: 16, maps.UDP: 6, maps.SCTP: 8}[p.key.Proto]
}
