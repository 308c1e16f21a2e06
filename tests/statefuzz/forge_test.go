package statefuzz

import (
	"encoding/binary"
	"net/netip"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// farOff is a distance to every number an end may have: further than a window.
const farOff = 1 << 30

// forge is a packet of somebody who knows addresses and ports, and no number.
func (w *world) forge(in *input) string {
	kind := in.next(12)
	key := w.forgedKey(in)
	seq, ack := w.wrong(in, key), w.wrong(in, Turned(key))
	s := packet.Spec{Seq: seq, Ack: ack}
	switch kind {
	case 0:
		s.Flags = packet.SYN
	case 1, 2:
		s.Flags = packet.ACK
	case 3:
		s.Flags, s.Payload = packet.ACK|packet.PSH, make([]byte, dataLen)
	case 4:
		s.Flags = packet.RST
	case 5:
		s.Flags = packet.FIN | packet.ACK
		s.Seq = w.number + 2*farOff // a near one is believed, see CLOSE_WINDOW
	case 6:
		key.Proto = maps.UDP
		key.Src = netip.AddrPortFrom(w.stranger(), 2001)
		s = packet.Spec{Payload: []byte("spoofed")}
	case 7:
		return w.forgeAnswer(in)
	default:
		key.Proto = maps.SCTP
		s = packet.Spec{Tag: seq | 1, Chunk: []packet.Chunk{packet.Init, packet.CookieEcho, packet.Data, packet.Abort}[kind-8]}
		if s.Chunk == packet.Init {
			s.Tag, s.InitTag = 0, ack
		}
	}
	s.Src, s.Dst, s.Proto = key.Src, key.Dst, key.Proto
	return w.say(&Packet{Spec: s, Forged: true})
}

// forgedKey is the tuple of somebody there is, or of nobody.
func (w *world) forgedKey(in *input) maps.FlowKey {
	_, key := w.key(in)
	key.Proto = maps.TCP
	if in.next(3) == 0 {
		key.Src = netip.AddrPortFrom(netip.MustParseAddr("198.18.0.1"), key.Src.Port())
	}
	return key
}

// stranger is an address no packet had before.
func (w *world) stranger() netip.Addr {
	w.number += step
	b := [4]byte{198, 19}
	binary.BigEndian.PutUint16(b[2:], uint16(w.number/step))
	return netip.AddrFrom4(b)
}

// wrong is a number that is neither what the end with this tuple sends next nor
// one it ever sent, maybe near.
func (w *world) wrong(in *input, k maps.FlowKey) uint32 {
	distance := []uint32{1, 77, 5000, 1 << 20, 7 << 20, farOff, 2 * farOff, 3 * farOff}[in.next(8)]
	for _, hosts := range [][]*Host{w.Clients, w.Pods} {
		for _, h := range hosts {
			if e := h.Ends[k]; e != nil {
				return e.Next + dataLen + distance
			}
		}
	}
	return w.number + farOff/2 + distance // not farOff: four of them are none
}

// forgeAnswer is a packet as if of the backend of a connection that lives.
func (w *world) forgeAnswer(in *input) string {
	var living []*Flow
	for _, f := range w.Flows {
		if f.Lives(w.Model) && f.Forward.Proto == maps.TCP && !f.Server.Host.Here {
			living = append(living, f)
		}
	}
	if len(living) == 0 {
		return ""
	}
	f := living[in.next(len(living))]
	flags := []packet.Flags{packet.RST, packet.ACK, packet.SYN | packet.ACK, packet.RST | packet.ACK}[in.next(4)]
	s := packet.Spec{Flags: flags, Seq: w.wrong(in, f.Reverse), Ack: w.wrong(in, f.Forward)}
	s.Src, s.Dst, s.Proto = f.Reverse.Src, f.Reverse.Dst, maps.TCP
	return w.say(&Packet{Spec: s, Forged: true})
}
