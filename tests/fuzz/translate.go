package fuzz

import (
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
	// MayLeave: XDP may leave the packet to TC, once in a while.
	MayLeave bool
	// Ambiguous are checksums where 0 and 0xffff are both right.
	Ambiguous []int
	// Begins: the frame is the first of a connection.
	Begins bool
	// Neighbour: the MAC addresses may be left to the kernel's neighbour code.
	Neighbour bool

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
	p, v := parse(frame)
	if v == maps.VerdictFragment && hook != maps.HookXDP {
		if first, ok := w.first(frame, hook); ok {
			p, v = first, maps.VerdictNone
		}
	}
	if v != maps.VerdictNone {
		return Expectation{Action: rig.Pass, Verdict: v, frame: frame}
	}
	f, known := w.flow(&p)
	if known && !actsAt(f, hook) || !known && hook == maps.HookTCEgress {
		return Expectation{Action: rig.Pass, Verdict: maps.VerdictNotService, frame: frame}
	}
	if known && w.Answered[p.key] && packet.Flags(p.flags)&packet.SYN != 0 && f.Flags&maps.FlowRemote != 0 {
		f.Src = netip.AddrPortFrom(f.Src.Addr(), 0) // claimed once more, perhaps another one
	}
	if !known {
		if f, v = begin(&p, w); v != maps.VerdictNone {
			return Expectation{Action: actionOf(v), Verdict: v, frame: frame}
		}
	}
	e := Expectation{Action: rig.Pass, Verdict: verdictOf(f), Begins: !known, Ambiguous: p.ambiguous(frame)}
	if f.Flags&maps.FlowRemote != 0 {
		return route(e, frame, &p, f, hook, w)
	}
	e.frame = rewrite(frame, &p, f)
	return e
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
	if big {
		return refuse(frame, p, maps.VerdictTooBig, uint32(w.MTU))
	}
	e.Action = rig.Sent
	e.Neighbour = hook != maps.HookXDP
	e.MayLeave = hook == maps.HookXDP
	e.frame = send(frame, p, f, w)
	if f.Src.Port() == 0 {
		e.PortAt = p.l4
		e.MayLeave = false // only what goes on for a while is confirmed
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
