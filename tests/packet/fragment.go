package packet

import (
	"encoding/binary"
	"slices"
)

// Fragments serializes s in pieces of at most size bytes, a multiple of 8, of
// what can be fragmented: all that follows the IP header and the extension
// headers of s. The checksum is that of the whole.
func (s Spec) Fragments(id uint32, size int) ([][]byte, error) {
	whole, err := s.Bytes()
	if err != nil {
		return nil, err
	}
	cut := fragment6
	if s.IsIPv4() {
		cut = fragment4
	}
	var out [][]byte
	for at := s.L4(); at < len(whole); at += size {
		end := min(at+size, len(whole))
		out = append(out, cut(s, whole, id, at, end))
	}
	return out, nil
}

// Bits of the field that has the offset, in 8 bytes, of a fragment.
const (
	more4 = 1 << 13 // above the offset
	more6 = 1       // below it, where 3 bits are
)

// fragment4 is whole[at:end] with the IPv4 header of whole.
func fragment4(s Spec, whole []byte, id uint32, at, end int) []byte {
	f := slices.Concat(whole[:s.L4()], whole[at:end])
	ip := f[s.L3():s.L4()]
	field := uint16((at - s.L4()) / 8)
	if end < len(whole) {
		field |= more4
	}
	binary.BigEndian.PutUint16(ip[2:], uint16(len(f)-s.L3()))
	binary.BigEndian.PutUint16(ip[4:], uint16(id))
	binary.BigEndian.PutUint16(ip[6:], field)
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip))
	return f
}

// fragment6 is whole[at:end] with the headers of whole and a fragment header.
func fragment6(s Spec, whole []byte, id uint32, at, end int) []byte {
	const length, nextHeader, fragmentHeader = 4, 6, 44
	field := uint16(at - s.L4())
	if end < len(whole) {
		field |= more6
	}
	header := []byte{byte(s.Proto), 0}
	header = binary.BigEndian.AppendUint16(header, field)
	header = binary.BigEndian.AppendUint32(header, id)
	f := slices.Concat(whole[:s.L4()], header, whole[at:end])
	next := s.L3() + nextHeader
	if n := len(s.chain()); n > 0 {
		next = s.L4() - 8 // of the last extension header
	}
	f[next] = fragmentHeader
	binary.BigEndian.PutUint16(f[s.L3()+length:], uint16(len(f)-s.L3()-40))
	return f
}

// sum is the one's complement sum of b, whose length is even.
func sum(b []byte) uint16 {
	var n uint32
	for i := 0; i < len(b); i += 2 {
		n += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return uint16(n)
}
