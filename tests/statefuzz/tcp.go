package statefuzz

import (
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// window is how much a TCP end takes beyond what it expects.
const window = 1 << 16

// step is between the first numbers of two connections: none fits another.
const step = 1<<22 + 12345

// dataLen is the length of every segment with data.
const dataLen = 100

// CallTCP begins a connection of h from key.Src to key.Dst, or repeats its SYN.
func (m *Model) CallTCP(h *Host, key maps.FlowKey) *Packet {
	if e := h.Ends[key]; e != nil && e.Phase == Called {
		return e.say(e.Last)
	} else if e != nil && e.Phase == Established {
		return nil
	}
	m.number += step
	e := h.add(&End{Key: key, Client: true, Phase: Called, First: m.number, Next: m.number + 1})
	e.Last = packet.Spec{Flags: packet.SYN, Seq: e.First}
	return e.say(e.Last)
}

// segment is one of e with the numbers it has now.
func (e *End) segment(flags packet.Flags, payload []byte) packet.Spec {
	return packet.Spec{Flags: flags | packet.ACK, Seq: e.Next, Ack: e.Want, Payload: payload}
}

func (e *End) ack() *Packet { return e.say(e.segment(0, nil)) }

// Send is data of e, nil if it has none to send.
func (e *End) Send() *Packet {
	if e.Phase != Established || e.SentFIN {
		return nil
	}
	e.Last = e.segment(packet.PSH, make([]byte, dataLen))
	e.Next += dataLen
	return e.say(e.Last)
}

// Finish closes e's direction.
func (e *End) Finish() *Packet {
	if e.Phase != Established || e.SentFIN {
		return nil
	}
	e.Last = e.segment(packet.FIN, nil)
	e.Next++
	e.SentFIN = true
	return e.say(e.Last)
}

// Abort ends e at once.
func (e *End) Abort() *Packet {
	if e.Phase != Established {
		return nil
	}
	p := e.say(packet.Spec{Flags: packet.RST | packet.ACK, Seq: e.Next, Ack: e.Want})
	e.Host.drop(e)
	return p
}

// Repeat is the last segment of e that took numbers.
func (e *End) Repeat() *Packet {
	s := e.Last
	if e.Phase == Dead || s.Flags == 0 && s.Chunk == 0 {
		return nil
	}
	if s.Flags&packet.ACK != 0 {
		s.Ack = e.Want
	}
	return e.say(s)
}

func (m *Model) hearTCP(h *Host, from *Packet, s packet.Spec) []*Packet {
	key := maps.FlowKey{Src: s.Dst, Dst: s.Src, Proto: maps.TCP}
	e := h.Ends[key]
	if e != nil {
		switch e.Phase {
		case Called:
			return m.hearCalled(e, from, s)
		case Answering:
			return m.hearAnswering(e, from, s)
		case Established:
			return hearEstablished(e, s)
		}
	}
	if s.Flags&(packet.SYN|packet.ACK|packet.RST) == packet.SYN && h.Serves {
		return m.accept(h, key, from, s)
	}
	if e != nil && s.Flags&packet.FIN != 0 {
		return []*Packet{e.ack()} // the last one was lost
	}
	if e != nil && s.Flags&packet.RST == 0 && s.Flags&packet.SYN == 0 && s.Seq == e.Want {
		return nil
	}
	return refuse(h, key, s)
}

// refuse answers a segment of no connection (RFC 9293, 3.10.7.1).
func refuse(h *Host, key maps.FlowKey, s packet.Spec) []*Packet {
	if s.Flags&packet.RST != 0 {
		return nil
	}
	out := packet.Spec{Flags: packet.RST, Seq: s.Ack}
	if s.Flags&packet.ACK == 0 {
		out = packet.Spec{Flags: packet.RST | packet.ACK, Ack: s.Seq + uint32(len(s.Payload))}
		if s.Flags&packet.SYN != 0 {
			out.Ack++
		}
	}
	p := (&End{Host: h, Key: key}).say(out)
	p.End = nil
	return []*Packet{p}
}

// accept is what a server does with a SYN.
func (m *Model) accept(h *Host, key maps.FlowKey, from *Packet, s packet.Spec) []*Packet {
	if !h.Listens {
		return refuse(h, key, s)
	}
	m.number += step
	e := h.add(&End{Key: key, Phase: Answering, First: m.number, Next: m.number + 1, Want: s.Seq + 1, Origin: from.End})
	e.Last = packet.Spec{Flags: packet.SYN | packet.ACK, Seq: e.First, Ack: e.Want}
	return []*Packet{e.say(e.Last)}
}

// hearCalled is a client that waits for its SYN-ACK (RFC 9293, 3.10.7.3).
func (m *Model) hearCalled(e *End, from *Packet, s packet.Spec) []*Packet {
	if s.Flags&packet.ACK == 0 {
		return nil
	}
	if s.Ack != e.Next {
		return refuse(e.Host, e.Key, s)
	}
	if s.Flags&packet.RST != 0 {
		e.Host.drop(e)
		return nil
	}
	if s.Flags&packet.SYN == 0 {
		return nil
	}
	e.Phase, e.Want, e.Peer = Established, s.Seq+1, from.End
	e.Last = packet.Spec{}
	m.begin(e, from.End)
	return []*Packet{e.ack()}
}

// hearAnswering is a server that has sent its SYN-ACK, as Linux has it
// (tcp_check_req): numbers out of the window are answered, whoever sends them.
func (m *Model) hearAnswering(e *End, from *Packet, s packet.Spec) []*Packet {
	if s.Flags&(packet.SYN|packet.ACK|packet.RST) == packet.SYN && s.Seq == e.Want-1 {
		return []*Packet{e.say(e.Last)}
	}
	if s.Flags&packet.ACK != 0 && s.Ack != e.Next {
		return refuse(e.Host, e.Key, s)
	}
	if s.Seq-e.Want >= window {
		if s.Flags&packet.RST != 0 {
			return nil
		}
		return []*Packet{e.ack()}
	}
	if s.Flags&(packet.RST|packet.SYN) != 0 {
		e.Host.drop(e)
		return refuse(e.Host, e.Key, s)
	}
	if s.Flags&packet.ACK == 0 {
		return nil
	}
	e.Phase, e.Peer, e.Last = Established, from.End, packet.Spec{}
	if e.Peer != nil {
		e.Flow = e.Peer.Flow
	}
	return hearEstablished(e, s)
}

// hearEstablished takes what comes in order, and asks for the rest.
func hearEstablished(e *End, s packet.Spec) []*Packet {
	end := s.Seq + uint32(len(s.Payload))
	if s.Flags&packet.RST != 0 {
		switch {
		case s.Seq == e.Want:
			e.Host.drop(e)
		case s.Seq-e.Want < window:
			return []*Packet{e.ack()} // RFC 5961, 3.2
		}
		return nil
	}
	if s.Flags&packet.SYN != 0 {
		return []*Packet{e.ack()} // RFC 5961, 4.2
	}
	if int32(s.Ack-e.Next) > 0 {
		return nil // of what was never sent
	}
	if s.Seq != e.Want {
		return []*Packet{e.ack()}
	}
	if e.SentFIN && s.Ack == e.Next {
		e.FINHeard = true
	}
	takes := len(s.Payload) > 0 || s.Flags&packet.FIN != 0
	if e.GotFIN && takes {
		return []*Packet{e.ack()}
	}
	e.Want = end
	if s.Flags&packet.FIN != 0 {
		e.Want++
		e.GotFIN = true
	}
	var out []*Packet
	if takes {
		out = []*Packet{e.ack()}
	}
	if e.FINHeard && e.GotFIN {
		e.Phase = Waiting
	}
	return out
}
