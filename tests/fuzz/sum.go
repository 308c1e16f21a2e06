package fuzz

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/ebb-lb/ebb/maps"
)

// remainder is the sum of b in 16-bit words modulo 0xffff: the Internet
// checksum's arithmetic (RFC 1071), in which 0 and 0xffff are one number.
func remainder(b []byte) uint32 {
	var sum uint64
	for ; len(b) >= 2; b = b[2:] {
		sum += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	return uint32(sum % 0xffff)
}

// network is the remainder of an IPv4 header: 0 if its checksum is right, else
// by how much it is wrong.
func (p *headers) network(frame []byte) uint32 {
	return remainder(frame[p.l3:p.l4])
}

// segment is the same for TCP or UDP with its pseudo header.
func (p *headers) segment(frame []byte) uint32 {
	from, to := p.l3+8, p.l3+ipv6Len
	if p.v4 {
		from, to = p.l3+12, p.l3+ipv4Len
	}
	length := p.l3 + p.total - p.l4
	end := min(len(frame), p.l3+p.total)
	pseudo := remainder(frame[from:to]) + uint32(length) + uint32(p.key.Proto)
	return (pseudo + remainder(frame[p.l4:end])) % 0xffff
}

// association is the checksum of an SCTP packet (RFC 9260, appendix A) as long as
// its IP header says. What a shorter frame lacks counts as zeros.
func (p *headers) association(frame []byte) uint32 {
	segment := make([]byte, p.l3+p.total-p.l4)
	copy(segment, frame[p.l4:])
	copy(segment[p.check()-p.l4:], []byte{0, 0, 0, 0})
	return castagnoli(segment)
}

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// settleAssociation writes the checksum of an SCTP packet that became frame, was
// before: a right one is right again, a wrong one by as much wrong.
func (p *headers) settleAssociation(frame, before []byte) {
	wrong := binary.LittleEndian.Uint32(before[p.check():]) ^ p.association(before)
	binary.LittleEndian.PutUint32(frame[p.check():], p.association(frame)^wrong)
}

// settle writes the checksum at, so that sum becomes want: a right checksum
// is right again, a wrong one as wrong as before.
func settle(frame []byte, at int, want uint32, sum func([]byte) uint32) {
	binary.BigEndian.PutUint16(frame[at:], 0)
	binary.BigEndian.PutUint16(frame[at:], uint16((want+0xffff-sum(frame)%0xffff)%0xffff))
}

// ambiguous returns where the checksums stand that were received as 0xffff
// where 0 is usual. The two are one number, and either may be sent on.
func (p *headers) ambiguous(frame []byte) []int {
	var at []int
	if p.v4 && binary.BigEndian.Uint16(frame[p.l3+10:]) == 0xffff {
		at = append(at, p.l3+10)
	}
	if p.key.Proto == maps.TCP && binary.BigEndian.Uint16(frame[p.check():]) == 0xffff {
		at = append(at, p.check())
	}
	return at
}
