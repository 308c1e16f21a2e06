package statefuzz

import (
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// cookie is what a server has sent in an INIT ACK and hears again.
type cookie struct {
	peerTag uint32
	origin  *End
}

// CallSCTP begins an association of h from key.Src to key.Dst, or repeats INIT.
func (m *Model) CallSCTP(h *Host, key maps.FlowKey) *Packet {
	if e := h.Ends[key]; e != nil && e.Phase == Called {
		return e.say(e.Last)
	} else if e != nil && e.Phase == Established {
		return nil
	}
	m.number += step
	e := h.add(&End{Key: key, Client: true, Phase: Called, Tag: m.number})
	e.Last = packet.Spec{Chunk: packet.Init, InitTag: e.Tag}
	return e.say(e.Last)
}

func (e *End) chunk(c packet.Chunk, payload ...byte) *Packet {
	return e.say(packet.Spec{Chunk: c, Tag: e.PeerTag, Payload: payload})
}

// SendSCTP is data of e, nil if it has none to send.
func (e *End) SendSCTP() *Packet {
	if e.Phase != Established || e.SentFIN {
		return nil
	}
	return e.chunk(packet.Data, make([]byte, dataLen)...)
}

// FinishSCTP ends the association of e.
func (e *End) FinishSCTP() *Packet {
	if e.Phase != Established || e.SentFIN {
		return nil
	}
	e.SentFIN = true
	e.Last = packet.Spec{Chunk: packet.Shutdown, Tag: e.PeerTag}
	return e.say(e.Last)
}

// AbortSCTP ends it at once.
func (e *End) AbortSCTP() *Packet {
	if e.Phase != Established {
		return nil
	}
	e.Host.drop(e)
	return e.chunk(packet.Abort)
}

func (m *Model) hearSCTP(h *Host, from *Packet, s packet.Spec) []*Packet {
	key := maps.FlowKey{Src: s.Dst, Dst: s.Src, Proto: maps.SCTP}
	e := h.Ends[key]
	if s.Chunk == packet.Init && h.Serves {
		return m.hearInit(h, key, from, s)
	}
	if e == nil || e.Phase == Waiting {
		return strange(h, key, s)
	}
	switch s.Chunk {
	case packet.InitAck:
		return m.hearInitAck(e, from, s)
	case packet.CookieEcho:
		return hearCookie(e, s)
	case packet.Abort:
		if s.Tag == e.Tag || s.Reflected && s.Tag == e.PeerTag {
			e.Host.drop(e)
		}
		return nil
	}
	if s.Tag != e.Tag || e.Phase != Established {
		return nil
	}
	switch s.Chunk {
	case packet.CookieAck:
		e.Last = packet.Spec{}
	case packet.Shutdown:
		return []*Packet{e.chunk(packet.ShutdownAck)}
	case packet.ShutdownAck:
		e.Phase = Waiting
		return []*Packet{e.chunk(packet.ShutdownComplete)}
	case packet.ShutdownComplete:
		e.Phase = Waiting
	}
	return nil
}

// strange answers a packet of no association (RFC 9260, 8.4).
func strange(h *Host, key maps.FlowKey, s packet.Spec) []*Packet {
	switch s.Chunk {
	case packet.Abort, packet.ShutdownComplete, packet.CookieAck, packet.InitAck, packet.Init:
		return nil
	}
	out := packet.Spec{Chunk: packet.Abort, Reflected: true, Tag: s.Tag}
	if s.Chunk == packet.ShutdownAck {
		out.Chunk = packet.ShutdownComplete
	}
	p := (&End{Host: h, Key: key}).say(out)
	p.End = nil
	return []*Packet{p}
}

// hearInit answers with a tag of its own for each INIT, and nothing else changes.
func (m *Model) hearInit(h *Host, key maps.FlowKey, from *Packet, s packet.Spec) []*Packet {
	peerTag := s.InitTag
	e := h.Ends[key]
	if !h.Listens {
		p := (&End{Host: h, Key: key, PeerTag: peerTag}).chunk(packet.Abort)
		p.End = nil
		return []*Packet{p}
	}
	if e == nil || e.Phase == Waiting {
		e = h.add(&End{Key: key, Phase: Answering, Origin: from.End, cookies: make(map[uint32]cookie)})
	}
	m.number += step
	e.cookies[m.number] = cookie{peerTag, from.End}
	return []*Packet{e.say(packet.Spec{Chunk: packet.InitAck, Tag: peerTag, InitTag: m.number})}
}

func (m *Model) hearInitAck(e *End, from *Packet, s packet.Spec) []*Packet {
	if e.Phase != Called || s.Tag != e.Tag {
		return nil
	}
	e.Phase, e.PeerTag, e.Peer = Established, s.InitTag, from.End
	m.begin(e, from.End)
	e.Last = packet.Spec{Chunk: packet.CookieEcho, Tag: e.PeerTag}
	return []*Packet{e.say(e.Last)}
}

// hearCookie begins the association, or begins it again for a client that has
// forgotten the one it had.
func hearCookie(e *End, s packet.Spec) []*Packet {
	c, ok := e.cookies[s.Tag]
	if !ok {
		return nil
	}
	if e.Phase != Established || e.Tag != s.Tag {
		e.Phase, e.Tag, e.PeerTag, e.Origin, e.Peer = Established, s.Tag, c.peerTag, c.origin, c.origin
		e.SentFIN = false
		if c.origin != nil && c.origin.Flow != nil && c.origin.Flow.Server == e {
			e.Flow = c.origin.Flow
		}
	}
	return []*Packet{e.chunk(packet.CookieAck)}
}
