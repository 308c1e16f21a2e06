// Package fuzz says what must become of a frame, whatever its bytes are: a
// second, plain implementation of parser and rewrite, written from the rules in
// docs/ and the RFCs, to compare the programs with. It computes every checksum
// anew instead of adjusting it. It knows no maps and runs no program; its tests
// do.
package fuzz

import (
	"encoding/binary"
	stdmaps "maps"
	"net"
	"net/netip"
	"slices"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// World is what a node knows when a frame comes by.
type World struct {
	// Services are the frontends with the one backend each has; the zero
	// Backend stands for none.
	Services map[maps.Frontend]Backend
	// Flows are both directions of every connection, established or not.
	Flows map[maps.FlowKey]maps.Flow
	// Answered are those of clients that have yet to answer their backend.
	Answered map[maps.FlowKey]bool

	Node4, Node6 netip.Addr // sources of what is sent to other nodes
	MTU          int        // of every route

	NodeMAC    net.HardwareAddr
	BackendMAC net.HardwareAddr // next hop towards remote backends
	ClientMAC  net.HardwareAddr // next hop towards clients
}

// Backend is where a service leads.
type Backend struct {
	Addr  netip.AddrPort
	Local bool
}

// Answer returns the backend's answer to a frame that was translated from in to
// out, and the World in which the connection so begun is known.
func (w *World) Answer(in, out []byte, remote bool) ([]byte, *World) {
	before, _ := parseFirst(in)
	after, _ := parseFirst(out)
	f := maps.Flow{Src: before.key.Dst, Dst: before.key.Src, Flags: maps.FlowReverse}
	if remote {
		f.Flags |= maps.FlowRemote
	}
	known := *w
	known.Flows = stdmaps.Clone(w.Flows)
	turned := maps.Flow{Src: after.key.Dst, Dst: after.key.Src}
	out = after.acknowledge(out)
	known.Flows[maps.FlowKey{Src: turned.Src, Dst: turned.Dst, Proto: after.key.Proto}] = f
	return rewrite(out, &after, turned), &known
}

// acknowledge makes of a SYN or INIT what a backend answers to it, in the same
// direction: a SYN-ACK of its number, an INIT ACK with its tag.
func (p *headers) acknowledge(frame []byte) []byte {
	out := slices.Clone(frame)
	l4 := out[p.l4:]
	switch {
	case packet.Flags(p.flags)&(packet.SYN|packet.ACK) != packet.SYN:
	case p.key.Proto == maps.TCP:
		l4[13] |= byte(packet.ACK)
		binary.BigEndian.PutUint32(l4[8:], binary.BigEndian.Uint32(l4[4:])+1)
	case p.key.Proto == maps.SCTP:
		l4[12] = byte(packet.InitAck)
		var tag []byte
		if len(l4) >= 20 {
			tag = l4[16:20]
		}
		copy(l4[4:8], append(tag[:len(tag):len(tag)], 0, 0, 0, 0))
	}
	return out
}

// sends reports whether p is what a backend sends from its port.
func (w *World) sends(p *headers) bool {
	for fe, b := range w.Services {
		if fe.Proto == p.key.Proto && b.Addr == p.key.Src {
			return true
		}
	}
	return false
}

// flow returns what is known of the connection p belongs to.
func (w *World) flow(p *headers) (maps.Flow, bool) {
	f, ok := w.Flows[p.key]
	return f, ok
}

// service returns the backend of the frontend p is sent to.
func (w *World) service(p *headers) (Backend, bool) {
	b, ok := w.Services[maps.Frontend{Addr: p.key.Dst.Addr(), Port: p.key.Dst.Port(), Proto: p.key.Proto}]
	return b, ok
}

// node returns the node's address of p's family.
func (w *World) node(p *headers) netip.Addr {
	if p.v4 {
		return w.Node4
	}
	return w.Node6
}

// uplinkHooks are the hooks that have a reference: the programs on uplinks.
var uplinkHooks = []maps.Hook{maps.HookXDP, maps.HookTCIngress, maps.HookTCEgress}
