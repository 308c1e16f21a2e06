package fuzz

import (
	"encoding/binary"
	"slices"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// disown ends the connection of a packet that nobody knows: TCP by a RST, SCTP
// by an ABORT. XDP leaves that to TC.
func disown(frame []byte, p *headers, hook maps.Hook) Expectation {
	drop := Expectation{Action: rig.Drop, Verdict: maps.VerdictNoFlow, frame: frame}
	if p.ends(frame) {
		return drop
	}
	if hook == maps.HookXDP {
		return Expectation{Action: rig.Pass, Verdict: maps.VerdictLeftToTC, frame: frame}
	}
	header := ipv6Len
	if p.v4 {
		header = ipv4Len
	}
	// Behind tags the kernel does not cut options out.
	if !answerable(frame, p) || p.tags > 0 && p.l4-p.l3 != header {
		return drop
	}
	last := p.reset(frame)
	if p.key.Proto == maps.SCTP {
		last = p.abort(frame)
	}
	if last == nil {
		return drop
	}
	return Expectation{Action: rig.Sent, Verdict: maps.VerdictNoFlow, frame: p.back(frame, last)}
}

// ends reports whether the packet is itself the end of its connection.
func (p *headers) ends(frame []byte) bool {
	if p.key.Proto == maps.SCTP {
		kind := packet.Chunk(frame[p.l4+12])
		return kind == packet.Abort || kind == packet.ShutdownComplete
	}
	return packet.Flags(p.flags)&packet.RST != 0
}

// back puts segment, whose checksum of TCP is still to be made, into a packet that
// goes where frame came from.
func (p *headers) back(frame, segment []byte) []byte {
	out := slices.Concat(frame[6:12], frame[:6], frame[12:p.l3])
	ip := frame[p.l3:]
	pseudo := uint32(len(segment)) + uint32(p.key.Proto)
	if p.v4 {
		head := make([]byte, ipv4Len)
		head[0], head[8], head[9] = 0x45, 64, byte(p.key.Proto)
		binary.BigEndian.PutUint16(head[2:], uint16(ipv4Len+len(segment)))
		copy(head[12:], ip[16:20])
		copy(head[16:], ip[12:16])
		settle(head, 10, 0, remainder)
		out, pseudo = append(out, head...), pseudo+remainder(head[12:])
	} else {
		head := make([]byte, ipv6Len)
		head[0], head[6], head[7] = 0x60, byte(p.key.Proto), 64
		binary.BigEndian.PutUint16(head[4:], uint16(len(segment)))
		copy(head[8:], ip[24:40])
		copy(head[24:], ip[8:24])
		out, pseudo = append(out, head...), pseudo+remainder(head[8:])
	}
	if p.key.Proto == maps.TCP {
		settle(segment, 16, 0, func(b []byte) uint32 { return pseudo + remainder(b) })
	}
	return append(out, segment...)
}

// ports begins a header that answers frame.
func (p *headers) ports(frame []byte, header int) []byte {
	b := make([]byte, header)
	copy(b, frame[p.l4+2:p.l4+4])
	copy(b[2:], frame[p.l4:p.l4+2])
	return b
}

// reset is the RST to a segment (RFC 9293, 3.10.7.1), without its checksum.
func (p *headers) reset(frame []byte) []byte {
	in, out := frame[p.l4:], p.ports(frame, tcpLen)
	flags := packet.Flags(p.flags)
	out[12], out[13] = tcpLen/4<<4, byte(packet.RST)
	if flags&packet.ACK != 0 {
		copy(out[4:8], in[8:12]) // SEQ=SEG.ACK
		return out
	}
	length := uint32(p.total - (p.l4 - p.l3) - int(in[12]>>4)*4)
	for _, f := range []packet.Flags{packet.SYN, packet.FIN} {
		if flags&f != 0 {
			length++
		}
	}
	out[13] |= byte(packet.ACK)
	binary.BigEndian.PutUint32(out[8:], binary.BigEndian.Uint32(in[4:])+length) // ACK=SEG.SEQ+SEG.LEN
	return out
}

// abort answers a chunk of an association nobody knows (RFC 9260, 8.4), with the
// tag that came; nil: not at all.
func (p *headers) abort(frame []byte) []byte {
	in, out := frame[p.l4:], p.ports(frame, sctpLen)
	copy(out[4:8], in[4:8])
	out[12], out[13], out[15] = byte(packet.Abort), 1, 4
	switch packet.Chunk(in[12]) {
	case packet.Init, packet.Abort, packet.ShutdownComplete, packet.CookieAck:
		return nil
	case packet.ShutdownAck:
		out[12] = byte(packet.ShutdownComplete)
	case packet.Error:
		const staleCookie = 3
		if len(in) >= sctpLen+2 && binary.BigEndian.Uint16(in[sctpLen:]) == staleCookie {
			return nil
		}
	}
	binary.LittleEndian.PutUint32(out[8:], castagnoli(out))
	return out
}
