package fuzz

import (
	"encoding/binary"
	"slices"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/rig"
)

// mostQuoted is how long what an error quotes may be, with all extension headers.
const mostQuoted = 128

// refuse answers a packet that cannot be sent on, for the reason v, with an ICMP
// error. What nobody could have sent, or many, or has too many headers, is dropped.
func refuse(frame []byte, p *headers, v maps.Verdict, mtu uint32) Expectation {
	if !answerable(frame, p) || p.l4-p.l3+quoted > mostQuoted {
		return Expectation{Action: rig.Drop, Verdict: v, frame: frame}
	}
	out := slices.Concat(frame[6:12], frame[:6], frame[12:p.l3]) // back to where it came from
	if p.v4 {
		out = append(out, refusal4(frame[p.l3:], p.l4-p.l3, v, mtu)...)
	} else {
		out = append(out, refusal6(frame[p.l3:], p.l4-p.l3, v, mtu)...)
	}
	return Expectation{Action: rig.Sent, Verdict: v, frame: out}
}

// answerable reports whether frame comes from one machine, to one.
func answerable(frame []byte, p *headers) bool {
	src := p.key.Src.Addr()
	if frame[0]&1 != 0 || src.IsLoopback() || src.IsMulticast() {
		return false
	}
	return !src.Is4() && !src.IsUnspecified() || src.Is4() && src.As4()[0] != 0 && src.As4()[0] < 224
}

// quoted is what an error carries of the transport header.
const quoted = 8

// refusal4 is the error for ip (RFC 792, RFC 1191), from its destination.
func refusal4(ip []byte, header int, v maps.Verdict, mtu uint32) []byte {
	msg := message(11, 0, 0, ip[:header+quoted]) // time exceeded
	if v == maps.VerdictTooBig {
		msg = message(3, 4, mtu, ip[:header+quoted]) // fragmentation needed
	}
	settle(msg, 2, 0, remainder)
	out := make([]byte, ipv4Len, ipv4Len+len(msg))
	out[0], out[8], out[9] = 0x45, 64, icmp4
	binary.BigEndian.PutUint16(out[2:], uint16(ipv4Len+len(msg)))
	copy(out[12:], ip[16:20])
	copy(out[16:], ip[12:16])
	settle(out, 10, 0, remainder)
	return append(out, msg...)
}

// refusal6 is the error for ip (RFC 4443), from its destination.
func refusal6(ip []byte, header int, v maps.Verdict, mtu uint32) []byte {
	msg := message(3, 0, 0, ip[:header+quoted]) // time exceeded
	if v == maps.VerdictTooBig {
		msg = message(2, 0, mtu, ip[:header+quoted]) // packet too big
	}
	out := make([]byte, ipv6Len, ipv6Len+len(msg))
	out[0], out[6], out[7] = 0x60, icmp6, 64
	binary.BigEndian.PutUint16(out[4:], uint16(len(msg)))
	copy(out[8:], ip[24:40])
	copy(out[24:], ip[8:24])
	settle(msg, 2, 0, func(b []byte) uint32 {
		return remainder(out[8:40]) + uint32(len(b)) + icmp6 + remainder(b)
	})
	return append(out, msg...)
}

func message(kind, code byte, rest uint32, quote []byte) []byte {
	b := []byte{kind, code, 0, 0}
	b = binary.BigEndian.AppendUint32(b, rest)
	return append(b, quote...)
}
