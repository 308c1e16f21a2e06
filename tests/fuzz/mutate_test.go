package fuzz

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"github.com/ebb-lb/ebb/maps"
)

// mutation changes a frame, in place or not, knowing where its headers stand
// if it has any.
type mutation func(r *rand.Rand, b []byte, p *headers) []byte

// mutations are grouped: those of bytes fit every frame, those of headers only
// one that could be read.
func mutations() (ofBytes, ofHeaders []mutation) {
	ofBytes = []mutation{flipBit, setByte, truncate, extend, swapSpans, setEtherType, insertTag}
	ofHeaders = []mutation{
		flipHeaderBit, swapEnds, lieAboutLength, lieAboutHeader, setTTL, setChecksum, setFlags, setFragment,
		setPorts, insertExtension, insertOptions, repair,
	}
	return ofBytes, ofHeaders
}

// mutate changes a copy of frame one to four times.
func mutate(r *rand.Rand, frame []byte) []byte {
	ofBytes, ofHeaders := mutations()
	b := slices.Clone(frame)
	for range 1 + r.IntN(4) {
		p, v := parse(b)
		if readable := v == maps.VerdictNone; readable && r.IntN(3) > 0 {
			b = pick(r, ofHeaders)(r, b, &p)
		} else if len(b) > etherLen {
			b = pick(r, ofBytes)(r, b, &p)
		}
	}
	return b
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// number is a random one, often one at an edge.
func number(r *rand.Rand) uint16 {
	return pick(r, []uint16{0, 1, 5, 7, 8, 19, 20, 40, 0xff, 1500, 1501, 0x8000, 0xfffe, 0xffff, uint16(r.Uint32())})
}

func flipBit(r *rand.Rand, b []byte, _ *headers) []byte {
	b[r.IntN(len(b))] ^= 1 << r.IntN(8)
	return b
}

func setByte(r *rand.Rand, b []byte, _ *headers) []byte {
	b[r.IntN(len(b))] = byte(number(r))
	return b
}

func truncate(r *rand.Rand, b []byte, _ *headers) []byte { return b[:etherLen+r.IntN(len(b)-etherLen)] }

func extend(r *rand.Rand, b []byte, _ *headers) []byte {
	for range 1 + r.IntN(80) {
		b = append(b, byte(r.Uint32()))
	}
	return b
}

// swapSpans swaps two fields of equal size somewhere.
func swapSpans(r *rand.Rand, b []byte, _ *headers) []byte {
	size := pick(r, []int{2, 4, 6, 16})
	if len(b) < 2*size {
		return b
	}
	first := r.IntN(len(b) - 2*size + 1)
	second := first + size + r.IntN(len(b)-first-2*size+1)
	one, other := slices.Clone(b[first:first+size]), b[second:second+size]
	copy(b[first:], other)
	copy(b[second:], one)
	return b
}

func setEtherType(r *rand.Rand, b []byte, _ *headers) []byte {
	types := []uint16{0x0800, 0x86dd, 0x8100, 0x88a8, 0x0806, number(r)}
	binary.BigEndian.PutUint16(b[etherLen-2:], pick(r, types))
	return b
}

func insertTag(r *rand.Rand, b []byte, _ *headers) []byte {
	tag := binary.BigEndian.AppendUint16(nil, pick(r, []uint16{0x8100, 0x88a8}))
	return slices.Insert(b, etherLen-2, binary.BigEndian.AppendUint16(tag, number(r))...)
}

func flipHeaderBit(r *rand.Rand, b []byte, p *headers) []byte {
	b[p.l3+r.IntN(p.l4+udpLen-p.l3)] ^= 1 << r.IntN(8)
	return b
}

// swapEnds makes it a packet in the other direction.
func swapEnds(_ *rand.Rand, b []byte, p *headers) []byte {
	f := maps.Flow{Src: p.key.Dst, Dst: p.key.Src}
	return rewrite(b, p, f)
}

func lieAboutLength(r *rand.Rand, b []byte, p *headers) []byte {
	at := p.l3 + 4
	if p.v4 {
		at = p.l3 + 2
	}
	if p.key.Proto == maps.UDP && r.IntN(2) == 0 {
		at = p.l4 + 4
	}
	binary.BigEndian.PutUint16(b[at:], number(r))
	return b
}

// lieAboutHeader changes the lengths of headers: of IPv4, of an extension, of TCP.
func lieAboutHeader(r *rand.Rand, b []byte, p *headers) []byte {
	switch {
	case p.key.Proto == maps.TCP && r.IntN(2) == 0:
		b[p.l4+12] = byte(number(r))
	case p.v4:
		b[p.l3] = 0x40 | byte(r.IntN(16))
	case p.l4 > p.l3+ipv6Len:
		b[p.l3+ipv6Len+1] = byte(r.IntN(4))
	}
	return b
}

func setTTL(r *rand.Rand, b []byte, p *headers) []byte {
	b[p.ttl()] = byte(pick(r, []int{0, 1, 2, 0xff}))
	return b
}

func setChecksum(r *rand.Rand, b []byte, p *headers) []byte {
	at := p.check()
	if p.v4 && r.IntN(3) == 0 {
		at = p.l3 + 10
	}
	binary.BigEndian.PutUint16(b[at:], pick(r, []uint16{0, 0xffff, number(r)}))
	return b
}

func setFlags(r *rand.Rand, b []byte, p *headers) []byte {
	switch p.key.Proto {
	case maps.TCP:
		b[p.l4+13] = byte(r.Uint32())
	case maps.SCTP: // a chunk, its flags, at times no tag
		b[p.l4+12], b[p.l4+13] = byte(r.IntN(16)), byte(r.Uint32())
		if r.IntN(2) == 0 {
			copy(b[p.l4+4:], []byte{0, 0, 0, 0})
		}
	}
	return b
}

func setFragment(r *rand.Rand, b []byte, p *headers) []byte {
	if p.v4 {
		binary.BigEndian.PutUint16(b[p.l3+6:], pick(r, []uint16{0x2000, 0x4000, 0x2001, 1, number(r)}))
	} else {
		b[p.l3+6] = byte(pick(r, []int{hopByHop, routing, fragment, destination, icmp6, int(maps.TCP), int(maps.UDP), int(maps.SCTP)}))
	}
	return b
}

// setPorts takes ports somebody listens on or talks from, or none of them.
func setPorts(r *rand.Rand, b []byte, p *headers) []byte {
	at := p.l4 + 2*r.IntN(2)
	binary.BigEndian.PutUint16(b[at:], pick(r, []uint16{
		localPort, remotePort, emptyPort, 8080, establishedPort, answeredPort, strangerPort, snatMin, snatMin + 1, number(r),
	}))
	return b
}

// insertExtension adds an IPv6 extension header before all others.
func insertExtension(r *rand.Rand, b []byte, p *headers) []byte {
	if p.v4 {
		return b
	}
	length := r.IntN(3)
	ext := make([]byte, 8+8*length)
	ext[0], ext[1], ext[3] = b[p.l3+6], byte(length), byte(r.IntN(4)/3) // at times, a segment left
	b[p.l3+6] = byte(pick(r, []int{hopByHop, routing, destination}))
	return p.grow(slices.Insert(b, p.l3+ipv6Len, ext...), p.l3+4, len(ext))
}

// insertOptions adds no-operations to an IPv4 header.
func insertOptions(r *rand.Rand, b []byte, p *headers) []byte {
	words := r.IntN(11)
	if !p.v4 || p.l4-p.l3+4*words > 60 {
		return b
	}
	b[p.l3] += byte(words)
	nops := slices.Repeat([]byte{1}, 4*words)
	return p.grow(slices.Insert(b, p.l3+ipv4Len, nops...), p.l3+2, len(nops))
}

// grow adds n to the length that stands at.
func (p *headers) grow(b []byte, at, n int) []byte {
	binary.BigEndian.PutUint16(b[at:], binary.BigEndian.Uint16(b[at:])+uint16(n))
	return b
}

// repair makes the checksums right.
func repair(_ *rand.Rand, b []byte, p *headers) []byte {
	if p.v4 {
		settle(b, p.l3+10, 0, p.network)
	}
	if p.key.Proto == maps.SCTP {
		binary.LittleEndian.PutUint32(b[p.check():], p.association(b))
		return b
	}
	settle(b, p.check(), 0, p.segment)
	return b
}
