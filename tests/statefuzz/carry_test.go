package statefuzz

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"strings"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// arrival is where a packet came out, and as what.
type arrival struct {
	to       *Host // nil: nobody
	spec     packet.Spec
	verdict  maps.Verdict // of the hook that did something with it, else of the last
	trace    []string
	acted    int  // hooks that translated it
	raw      bool // it leaves the node, or reaches a pod, as it was sent
	dropped  bool
	answered []byte // what the node answered itself
}

func (a *arrival) String() string { return strings.Join(a.trace, ", ") }

// passage is one packet on its way through the node.
type passage struct {
	w     *world
	p     *Packet
	frame []byte
	arrival
	over bool
}

func (w *world) frame(s packet.Spec) []byte {
	b, err := s.Bytes()
	w.must(err)
	return b
}

func (w *world) newPassage(p *Packet) *passage {
	p.SrcMAC, p.DstMAC = rig.GatewayMAC, rig.NodeMAC
	s := &passage{w: w, p: p, frame: w.frame(p.Spec)}
	s.spec = p.Spec
	return s
}

// first is the hook a packet meets first.
func (s *passage) first() maps.Hook {
	switch {
	case s.p.Here:
		return maps.HookPodIngress
	case s.w.shape.xdp:
		return maps.HookXDP
	}
	return maps.HookTCIngress
}

// carry brings p through the node.
func (w *world) carry(p *Packet) *arrival {
	s := w.newPassage(p)
	s.run(s.first())
	return s.finish()
}

// carryBoth does so with two packets that meet their first hooks at once.
func (w *world) carryBoth(a, b *Packet) (*arrival, *arrival) {
	one, two := w.newPassage(a), w.newPassage(b)
	if runtime.NumCPU() < 2 {
		one.run(one.first())
		two.run(two.first())
	} else {
		r := w.rig.Race(w.tb, rig.Shot{Hook: one.first(), Frame: one.frame}, rig.Shot{Hook: two.first(), Frame: two.frame})
		one.take(one.first(), one.verdictOf(r[0]))
		two.take(two.first(), two.verdictOf(r[1]))
	}
	return one.finish(), two.finish()
}

// verdictOf adds the verdict that a result of two CPUs at once is without, as far
// as the frame tells.
func (s *passage) verdictOf(r rig.Result) rig.Result {
	local, remote := maps.VerdictToLocal, maps.VerdictToRemote
	if s.p.Src.Port() == podPort {
		local, remote = maps.VerdictReplyLocal, maps.VerdictReplyRemote
	}
	switch _, to := endsOf(r.Frame); {
	case r.Action == rig.Drop:
	case r.Action == rig.Sent && to == s.p.Src:
		r.Verdict = maps.VerdictNoFlow
	case r.Action == rig.Sent:
		r.Verdict = remote
	case !bytes.Equal(r.Frame, s.frame):
		r.Verdict = local
		if b := s.w.Host(to.Addr()); local == maps.VerdictToLocal && b != nil && !b.Here {
			r.Verdict = remote
		}
	case s.first() == maps.HookXDP:
		r.Verdict = maps.VerdictLeftToTC
	default:
		r.Verdict = maps.VerdictNotService
	}
	return r
}

// run puts the packet through a hook.
func (s *passage) run(h maps.Hook) { s.take(h, s.w.rig.Run(s.w.tb, h, s.frame)) }

// take is what a hook did with the packet.
func (s *passage) take(h maps.Hook, r rig.Result) {
	s.trace = append(s.trace, fmt.Sprintf("%s %s", h, r.Verdict))
	if h == maps.HookXDP && r.Verdict == maps.VerdictLeftToTC && r.Action == rig.Pass {
		s.run(maps.HookTCIngress)
		return
	}
	s.verdict = r.Verdict
	switch {
	case r.Action == rig.Drop:
		s.over, s.dropped = true, true
	case r.Verdict >= maps.VerdictToLocal && r.Verdict <= maps.VerdictReplyRemote:
		s.acted++
		s.translated(h, r)
		s.over = r.Action == rig.Sent
	case r.Action == rig.Sent:
		s.over, s.dropped, s.answered = true, true, r.Frame
	default:
		if d := packet.Diff(s.frame, r.Frame); d != "" {
			s.w.fail("%s passed a packet but changed it:\n%s", h, d)
		}
	}
}

// translated checks that only addresses, ports and checksums were changed, and
// what a router changes where ebb is one.
func (s *passage) translated(h maps.Hook, r rig.Result) {
	want := s.spec
	want.Src, want.Dst = endsOf(r.Frame)
	if r.Action == rig.Sent {
		want.TTL, want.SrcMAC, want.DstMAC = 63, rig.NodeMAC, rig.OtherMAC
		if r.Verdict == maps.VerdictReplyRemote {
			want.DstMAC = rig.GatewayMAC
		}
	}
	w := s.w.frame(want)
	if h == maps.HookTCIngress && r.Action == rig.Sent {
		copy(w[:12], r.Frame) // the kernel writes them later
	}
	if d := packet.Diff(w, r.Frame); d != "" {
		s.w.fail("%s makes another packet of %s:\n%s", h, describe(s.p), d)
	}
	s.spec, s.frame = want, w
}

// endsOf reads addresses and ports of a frame without options.
func endsOf(frame []byte) (src, dst netip.AddrPort) {
	a := func(at int) netip.Addr { return netip.AddrFrom4([4]byte(frame[at : at+4])) }
	port := func(at int) uint16 { return binary.BigEndian.Uint16(frame[at:]) }
	return netip.AddrPortFrom(a(26), port(34)), netip.AddrPortFrom(a(30), port(36))
}

// finish brings the packet from behind its first hook to where it goes.
func (s *passage) finish() *arrival {
	a := &s.arrival
	to := s.w.Host(s.spec.Dst.Addr())
	if !s.over && to != nil {
		if to.Here {
			s.run(maps.HookPodEgress)
		} else if s.p.Here {
			s.run(maps.HookTCEgress)
		} // else it came by the uplink, and a router would not send it back
	}
	if s.dropped {
		return a
	}
	if s.acted > 1 {
		s.w.fail("%s was translated twice: %s", describe(s.p), a)
	}
	a.raw = s.acted == 0
	a.to = s.w.Host(s.spec.Dst.Addr())
	// From here on it is between a client and a pod's own address, nothing of ebb's.
	// (What that would mean for a connection is I6.)
	if a.raw && a.to != nil {
		a.to = nil
	}
	return a
}

// describe is p in one line.
func describe(p *Packet) string {
	var b strings.Builder
	if p.Forged {
		b.WriteString("forged ")
	}
	fmt.Fprintf(&b, "%s %s > %s", p.Proto, p.Src, p.Dst)
	switch p.Proto {
	case maps.TCP:
		for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK"} {
			if p.Flags&(1<<i) != 0 {
				b.WriteString(" " + name)
			}
		}
		fmt.Fprintf(&b, " seq %d ack %d len %d", p.Seq, p.Ack, len(p.Payload))
	case maps.SCTP:
		fmt.Fprintf(&b, " chunk %d tag %x", p.Chunk, p.Tag)
	}
	return b.String()
}
