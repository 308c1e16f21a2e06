package fuzz

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// Expectation is what must become of a frame at a hook.
type Expectation struct {
	Action  rig.Action
	Verdict maps.Verdict
	// PortAt is where the source port stands that the programs may choose; 0:
	// there is nothing to choose.
	PortAt int
	// Ambiguous are checksums where 0 and 0xffff are both right.
	Ambiguous []int
	// Begins: the frame is the first of a connection.
	Begins bool
	// Neighbour: the MAC addresses may be left to the kernel's neighbour code.
	Neighbour bool

	// Also is what may become of it instead, unchanged: it depends on what the
	// programs have seen before.
	Also []maps.Verdict

	frame []byte
	port  func(uint16) []byte
}

// Frame is what leaves the hook, given the source port that was chosen.
func (e Expectation) Frame(port uint16) []byte {
	if e.port != nil {
		return e.port(port)
	}
	return e.frame
}

// Translate returns what must become of frame at hook of a node in World w.
func Translate(frame []byte, hook maps.Hook, w *World) Expectation {
	foreign := w.foreign(frame, hook)
	if foreign && hook == maps.HookTCIngress {
		return Expectation{Action: rig.Pass, Verdict: maps.VerdictNotOurs, frame: frame}
	}
	p, v := parse(frame)
	if v == maps.VerdictFragment && hook != maps.HookXDP {
		if first, ok := w.first(frame, hook); ok {
			p, v = first, maps.VerdictNone
		}
	}
	if v != maps.VerdictNone {
		return Expectation{Action: rig.Pass, Verdict: v, frame: frame}
	}
	if foreign {
		e := Expectation{Action: rig.Pass, Verdict: maps.VerdictNotOurs, frame: frame}
		e.Also = []maps.Verdict{maps.VerdictNotService} // is not asked about
		return e
	}
	f, known := w.flow(&p)
	if known && !actsAt(f, hook) || !known && hook == maps.HookTCEgress {
		e := Expectation{Action: rig.Pass, Verdict: maps.VerdictNotService, frame: frame}
		if !known && p.key.Proto != maps.UDP && w.sends(&p) {
			e.Also = []maps.Verdict{maps.VerdictBackendAstray}
		}
		return e
	}
	if known && w.Answered[p.key] && packet.Flags(p.flags)&packet.SYN != 0 && f.Flags&maps.FlowRemote != 0 {
		f.Src = netip.AddrPortFrom(f.Src.Addr(), 0) // claimed once more, perhaps another one
	}
	if !known {
		f, v = begin(&p, w)
		if v == maps.VerdictNoFlow {
			return disown(frame, &p, hook)
		}
		if v != maps.VerdictNone {
			e := Expectation{Action: actionOf(v), Verdict: v, frame: frame}
			if v == maps.VerdictNotService && p.key.Dst.Addr() == w.node(&p) && w.sends(&p) {
				e.Also = []maps.Verdict{maps.VerdictSNATUnknown}
			}
			return e
		}
	}
	e := Expectation{Action: rig.Pass, Verdict: verdictOf(f), Begins: !known && !p.ends(frame), Ambiguous: p.ambiguous(frame)}
	if f.Flags&maps.FlowReverse != 0 && p.key.Proto != maps.UDP && packet.Flags(p.flags)&packet.SYN != 0 {
		// In a handshake, an answer to another SYN or none.
		e.Also = []maps.Verdict{maps.VerdictNotService, maps.VerdictBackendAstray, maps.VerdictSNATUnknown}
	}
	if f.Flags&maps.FlowRemote != 0 {
		also := e.Also
		e = route(e, frame, &p, f, hook, w)
		e.Also = also
		return e
	}
	e.frame = rewrite(frame, &p, f)
	return e
}

// foreign reports whether a frame that comes in is for another station. The kernel takes
// tags out of frames before TC sees them; here it does not.
func (w *World) foreign(frame []byte, hook maps.Hook) bool {
	if hook == maps.HookTCEgress {
		return false
	}
	if !bytes.Equal(frame[:6], w.NodeMAC) {
		return true
	}
	const tagged, tags = 0x8100, 0x88a8
	outer := binary.BigEndian.Uint16(frame[12:])
	if hook == maps.HookTCIngress || outer != tagged && outer != tags {
		return false
	}
	if outer == tags || len(frame) < etherLen+4 {
		return true
	}
	inner, id := binary.BigEndian.Uint16(frame[etherLen+2:]), binary.BigEndian.Uint16(frame[etherLen:])&0xfff
	return inner == tagged || inner == tags || id != 0 && id != rig.VLAN
}

// martian reports whether nobody beyond an uplink has this address.
func martian(a netip.Addr) bool {
	if a.Is4() {
		first := a.As4()[0]
		return first == 0 || first == 127 || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
	}
	return a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast()
}

// first reads a fragment that has ports, if they mean something here. Of later
// ones nothing is known: each frame is the first that comes.
func (w *World) first(frame []byte, hook maps.Hook) (headers, bool) {
	p, v := parseFirst(frame)
	if v != maps.VerdictNone || p.key.Proto == maps.SCTP {
		return p, false // a checksum of SCTP needs the whole
	}
	if f, known := w.flow(&p); known {
		return p, actsAt(f, hook)
	}
	_, served := w.service(&p)
	return p, served && hook == maps.HookTCIngress
}

// actsAt: a packet is translated at the device where its client is. Only what a
// backend of this node answers leaves by it.
func actsAt(f maps.Flow, hook maps.Hook) bool {
	leaves := f.Flags&maps.FlowReverse != 0 && f.Flags&maps.FlowRemote == 0
	return leaves == (hook == maps.HookTCEgress)
}

// begin chooses what becomes of the packets of a new connection.
func begin(p *headers, w *World) (maps.Flow, maps.Verdict) {
	b, ok := w.service(p)
	switch {
	case !ok:
		return maps.Flow{}, maps.VerdictNotService
	case martian(p.key.Src.Addr()):
		return maps.Flow{}, maps.VerdictMartian
	case p.key.Proto != maps.UDP && packet.Flags(p.flags)&(packet.SYN|packet.ACK) == packet.SYN|packet.ACK:
		return maps.Flow{}, maps.VerdictNoFlow // begins nothing
	case b == Backend{}:
		return maps.Flow{}, maps.VerdictNoBackend
	case b.Local:
		return maps.Flow{Src: p.key.Src, Dst: b.Addr}, maps.VerdictNone
	case p.key.Proto != maps.UDP && packet.Flags(p.flags)&packet.SYN == 0:
		return maps.Flow{}, maps.VerdictNoFlow // which port was it?
	}
	return maps.Flow{Src: netip.AddrPortFrom(w.node(p), 0), Dst: b.Addr, Flags: maps.FlowRemote}, maps.VerdictNone
}

func actionOf(v maps.Verdict) rig.Action {
	if v == maps.VerdictNotService {
		return rig.Pass
	}
	return rig.Drop
}

func verdictOf(f maps.Flow) maps.Verdict {
	switch f.Flags & (maps.FlowReverse | maps.FlowRemote) {
	case maps.FlowReverse | maps.FlowRemote:
		return maps.VerdictReplyRemote
	case maps.FlowReverse:
		return maps.VerdictReplyLocal
	case maps.FlowRemote:
		return maps.VerdictToRemote
	}
	return maps.VerdictToLocal
}

// route completes e for a packet that the node sends on itself.
func route(e Expectation, frame []byte, p *headers, f maps.Flow, hook maps.Hook, w *World) Expectation {
	expired, big := frame[p.ttl()] <= 1, p.total > w.MTU
	if hook == maps.HookXDP && (expired || big || p.tags > 0) {
		return Expectation{Action: rig.Pass, Verdict: maps.VerdictLeftToTC, frame: frame}
	}
	if expired {
		return refuse(frame, p, maps.VerdictTTLExpired, 0)
	}
	if big && mayBeCut(frame, p) {
		return cut(frame, p, w.MTU)
	}
	if big {
		return refuse(frame, p, maps.VerdictTooBig, uint32(w.MTU))
	}
	e.Action = rig.Sent
	e.Neighbour = hook != maps.HookXDP
	e.frame = send(frame, p, f, w)
	if f.Src.Port() == 0 {
		e.PortAt = p.l4
		e.port = func(port uint16) []byte {
			f.Src = netip.AddrPortFrom(f.Src.Addr(), port)
			return send(frame, p, f, w)
		}
	}
	return e
}

// send is rewrite, and one hop.
func send(frame []byte, p *headers, f maps.Flow, w *World) []byte {
	hopped := slices.Clone(frame)
	hopped[p.ttl()]--
	if p.v4 {
		settle(hopped, p.l3+10, p.network(frame), p.network)
	}
	out := rewrite(hopped, p, f)
	next := w.BackendMAC
	if f.Flags&maps.FlowReverse != 0 {
		next = w.ClientMAC
	}
	copy(out, next)
	copy(out[6:], w.NodeMAC)
	return out
}

// rewrite gives the packet the addresses and ports of f.
func rewrite(frame []byte, p *headers, f maps.Flow) []byte {
	out := slices.Clone(frame)
	src, dst := out[p.l3+8:], out[p.l3+24:]
	if p.v4 {
		src, dst = out[p.l3+12:], out[p.l3+16:]
	}
	copy(src, f.Src.Addr().AsSlice())
	copy(dst, f.Dst.Addr().AsSlice())
	binary.BigEndian.PutUint16(out[p.l4:], f.Src.Port())
	binary.BigEndian.PutUint16(out[p.l4+2:], f.Dst.Port())
	if p.v4 {
		settle(out, p.l3+10, p.network(frame), p.network)
	}
	if p.key.Proto == maps.SCTP {
		p.settleAssociation(out, frame)
		return out
	}
	check := binary.BigEndian.Uint16(frame[p.check():])
	if p.key.Proto == maps.UDP && check == 0 {
		return out // there is none, and none is made
	}
	settle(out, p.check(), p.segment(frame), p.segment)
	if p.key.Proto == maps.UDP && binary.BigEndian.Uint16(out[p.check():]) == 0 {
		binary.BigEndian.PutUint16(out[p.check():], 0xffff)
	}
	return out
}

// mayBeGuest reports whether a frame is one of those that get another source port if
// their backend is known to have flows, which is more than the reference knows: to no
// Service, by a tuple that a flow has.
func (w *World) mayBeGuest(frame []byte) bool {
	p, v := parseFirst(frame)
	if v != maps.VerdictNone {
		return false
	}
	turned := p
	turned.key.Src, turned.key.Dst = p.key.Dst, p.key.Src
	f, known := w.flow(&turned)
	_, itself := w.flow(&p)
	return known && !itself && f.Flags&maps.FlowReverse != 0
}
