package statefuzz

import (
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// CallUDP sends a datagram of h from key.Src to key.Dst.
func (m *Model) CallUDP(h *Host, key maps.FlowKey) *Packet {
	e := h.Ends[key]
	if e == nil {
		e = h.add(&End{Key: key, Client: true, Phase: Established})
	}
	e.Asked = m.Now
	return e.say(packet.Spec{Payload: []byte("question")})
}

// Reply is a datagram of e, a server.
func (e *End) Reply() *Packet {
	if e.Phase != Established {
		return nil
	}
	return e.say(packet.Spec{Payload: []byte("answer")})
}

// hearUDP remembers who asked; servers answer every question. An answer makes
// a flow, unless there is one that lives, or the node may have forgotten the question.
func (m *Model) hearUDP(h *Host, from *Packet, s packet.Spec) []*Packet {
	key := maps.FlowKey{Src: s.Dst, Dst: s.Src, Proto: maps.UDP}
	e := h.Ends[key]
	if h.Serves {
		if !h.Listens {
			return nil
		}
		if e == nil || from.End != nil && e.Origin != from.End {
			e = h.add(&End{Key: key, Phase: Established, Origin: from.End})
		}
		e.Peer = from.End
		return []*Packet{e.Reply()}
	}
	if e != nil && from.End != nil && m.Now-e.Asked <= udpTimeout && e.Called == from.From && (e.Flow == nil || !e.Flow.Promised(m)) {
		e.Peer = from.End
		m.begin(e, from.End)
		from.End.Flow = e.Flow
	}
	return nil
}
