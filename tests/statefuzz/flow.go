package statefuzz

import (
	"slices"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// How long the node remembers what is silent, in ticks, less than it promises
// by what a slow test may take.
const (
	slack       = 3
	tcpTimeout  = 86400 - slack
	halfClosed  = 3600 - slack
	udpTimeout  = 30 - slack
	sctpTimeout = 210 - slack
	lateTimeout = 60 - slack // over, but late packets are translated
	handshake   = 20 - slack
	narrowClaim = 3 - 2 // unproved and taken by the next one, where ports are few
)

// Flow is what a client and a backend have with each other from the time the
// client has heard the backend's answer.
type Flow struct {
	Client, Server   *End
	Forward, Reverse maps.FlowKey // of the client's packets, of the backend's

	Proved    bool // the client's answer to the answer passed the node
	Sure      bool // and must have been a proof to it
	Held      bool // it must be in the map of flows, which had room
	Forgotten bool // both halves were taken from the node
	NoReverse bool // that half was, before the flow was proved
	Succeeded bool // the client's tuple was used again
	Over      bool
	OverAt    uint32
	FIN       [2]bool // of the client, of the server
	Seen      uint32  // tick of the last packet
}

// begin makes the flow of the client c and the server s.
func (m *Model) begin(c, s *End) {
	if s == nil {
		return
	}
	f := &Flow{Client: c, Server: s, Forward: c.Key, Reverse: s.Key, Seen: m.Now, NoReverse: s.Evicted}
	m.Flows = append(m.Flows, f)
	c.Flow, s.Flow = f, f
}

// Expired reports whether the node may have forgotten f by now.
func (f *Flow) Expired(m *Model) bool {
	silent := m.Now - f.Seen
	switch {
	case f.Over:
		return m.Narrow || m.Now-f.OverAt > lateTimeout
	case !f.Sure && m.Narrow:
		return silent > narrowClaim
	case f.Forward.Proto == maps.UDP:
		return silent > udpTimeout
	case !f.Sure:
		return silent > handshake
	case f.Forward.Proto == maps.SCTP:
		return silent > sctpTimeout
	case f.FIN[0] || f.FIN[1]:
		return silent > halfClosed
	}
	return silent > tcpTimeout
}

// Kept reports whether the node has no reason to have forgotten f.
func (f *Flow) Kept(m *Model) bool { return !f.Forgotten && !f.Succeeded && !f.Expired(m) }

// Binds reports whether p, a client's, can reach nobody but the server of f.
func (f *Flow) Binds(m *Model, p *Packet) bool {
	switch {
	case f.Forward != p.Key() || !f.Kept(m) || !f.Sure && f.Server.Host.State == maps.Gone:
		return false
	case p.Here != f.Client.Host.Here: // its client is elsewhere, or this is not its client
		return false
	case p.Proto == maps.UDP:
		return f.Promised(m)
	case p.Proto == maps.SCTP && !f.Sure && f.followsOther(m):
		// Of two INIT ACKs with different tags the node knows the last, the client takes the
		// first: until COOKIE ACK an older flow, whose backend is gone, may be meant.
		return false
	}
	if !p.Opens() {
		return true
	}
	// Tables may change between two SYNs, and if its backend is gone it begins anew.
	return f.Proved && f.Server.Host.State != maps.Gone && !f.Begins(m)
}

// Begins reports whether a SYN of f, repeated or forged, is for the node like any
// that begins: for want of room f goes on from half_open, where no SYN is compared
// with it. What one begins elsewhere the client does not hear of, see judgeAnswer.
func (f *Flow) Begins(m *Model) bool { return m.Narrow && !f.Held }

// followsOther reports whether the client's tuple had another flow before f.
func (f *Flow) followsOther(m *Model) bool {
	return slices.ContainsFunc(m.Flows, func(o *Flow) bool { return o != f && o.Forward == f.Forward })
}

// Promised reports whether every packet of f must come through.
func (f *Flow) Promised(m *Model) bool {
	if f.Over || !f.Kept(m) || !f.Sure && f.Server.Host.State == maps.Gone || !f.Client.alive() || !f.Server.alive() {
		return false
	}
	return f.Forward.Proto != maps.UDP || f.Server.Host.State != maps.Gone
}

// Lives reports whether f is established for the node and both ends.
func (f *Flow) Lives(m *Model) bool { return f.Proved && f.Promised(m) }

// alive reports whether e would take its peer's packets.
func (e *End) alive() bool {
	return e.Host.Alive && e.Host.Ends[e.Key] == e && (e.Phase == Established || e.Phase == Answering)
}

// came reports whether s, as it arrived, was translated as a packet of f.
func (f *Flow) came(s packet.Spec, client bool) bool {
	if client {
		return Turned(f.Reverse) == maps.FlowKey{Src: s.Src, Dst: s.Dst, Proto: s.Proto}
	}
	return Turned(f.Forward) == maps.FlowKey{Src: s.Src, Dst: s.Dst, Proto: s.Proto}
}

// Passed notes that a packet of f was translated. room: there was some in flows.
// met: another packet was on its way at the same time.
func (f *Flow) Passed(m *Model, p *Packet, client, room, met bool) {
	if p.Proto != maps.UDP && p.Opens() {
		if f.Kept(m) {
			f.Seen = m.Now
		}
		return
	}
	rst := p.Proto == maps.TCP && p.Flags&packet.RST != 0 || p.Proto == maps.SCTP && p.Chunk == packet.Abort
	if client && !rst {
		m.proved[[2]maps.FlowKey{f.Forward, f.Reverse}] = true
	}
	if !f.Kept(m) {
		return
	}
	f.Seen = m.Now
	switch {
	case rst:
	case client && !f.Proved:
		f.Proved, f.Sure = true, p.Proto != maps.SCTP && !met && !f.Server.Evicted
		f.Held = room && f.Sure
	case f.Proved && !f.Sure && client == (p.Proto == maps.UDP) && p.Chunk != packet.InitAck:
		// Until now it may have expected another of the server's tags, or not known the answer.
		// Of UDP only the client's datagrams prove anything.
		f.Sure, f.Held = true, room
	}
	if p.Proto == maps.TCP && p.Flags&packet.FIN != 0 {
		f.FIN[index(client)] = true
	}
	if !f.Over && (rst || f.FIN[0] && f.FIN[1] || p.Proto == maps.SCTP && p.Chunk == packet.ShutdownComplete) {
		f.Over, f.OverAt, f.Held = true, m.Now, false
	}
}

func index(client bool) int {
	if client {
		return 0
	}
	return 1
}

// Living returns the flow that lives and has k as its forward tuple.
func (m *Model) Living(k maps.FlowKey) *Flow {
	for _, f := range m.Flows {
		if f.Forward == k && f.Lives(m) {
			return f
		}
	}
	return nil
}

// Holder returns the flow that lives and has k as its reverse tuple.
func (m *Model) Holder(k maps.FlowKey) *Flow {
	for _, f := range m.Flows {
		if f.Reverse == k && f.Lives(m) {
			return f
		}
	}
	return nil
}

// Proved reports whether the flow of two tuples was ever proved.
func (m *Model) Proved(forward, reverse maps.FlowKey) bool {
	return m.proved[[2]maps.FlowKey{forward, reverse}]
}

// Believes notes that a packet of a client reached h: if that has a connection
// by this tuple, maybe an older one, what it says next proves the flow.
func (m *Model) Believes(h *Host, forward, reverse maps.FlowKey) {
	if e := h.Ends[reverse]; e != nil && e.Phase == Established {
		m.proved[[2]maps.FlowKey{forward, reverse}] = true
	}
}

// Datagram notes that one passed between two tuples, whoever it is from: of
// datagrams nobody can tell a client from who sends in its name.
func (m *Model) Datagram(forward, reverse maps.FlowKey, client bool) {
	pair := [2]maps.FlowKey{forward, reverse}
	if !client {
		m.said[pair] = true
	} else if m.said[pair] {
		m.proved[pair] = true
	}
}
