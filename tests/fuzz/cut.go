package fuzz

import (
	"encoding/binary"
	"slices"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/rig"
)

const (
	dontFragment = 0x4000
	// mostPiece is how many bytes of the packet are in a piece.
	mostPiece = 8192
)

// mayBeCut reports whether routers may fragment a packet, and ebb does.
func mayBeCut(frame []byte, p *headers) bool {
	return p.v4 && p.key.Proto != maps.SCTP && binary.BigEndian.Uint16(frame[p.l3+6:])&dontFragment == 0
}

// cut is the last piece of a packet that is larger than mtu; the others come in
// beside it.
func cut(frame []byte, p *headers, mtu int) Expectation {
	header := p.l4 - p.l3
	size := min((mtu-header)&^7, mostPiece)
	bytes := p.total - header
	at := (bytes - 1) / size * size
	out := slices.Concat(frame[:p.l4], frame[p.l4+at:p.l3+p.total])
	ip := out[p.l3:p.l4]
	dropOptions(ip[ipv4Len:])
	binary.BigEndian.PutUint16(ip[2:], uint16(header+bytes-at))
	binary.BigEndian.PutUint16(ip[6:], binary.BigEndian.Uint16(ip[6:])+uint16(at/8))
	settle(ip, 10, 0, remainder)
	return Expectation{Action: rig.Sent, Verdict: maps.VerdictFragmented, frame: out}
}

// dropOptions makes no-operations of options that the first piece alone has.
func dropOptions(o []byte) {
	for len(o) > 1 && o[0] != 0 {
		n := int(o[1])
		if o[0] == 1 {
			o = o[1:]
			continue
		}
		if n < 2 {
			return
		}
		n = min(n, len(o))
		if o[0]&0x80 == 0 {
			for i := range n {
				o[i] = 1
			}
		}
		o = o[n:]
	}
}
