// Package fuzz says what must become of a frame, whatever its bytes are: a
// second, plain implementation of parser and rewrite, written from the rules in
// docs/ and the RFCs, to compare the programs with. It computes every checksum
// anew instead of adjusting it. It knows no maps and runs no program; its tests
// do.
package fuzz

import (
	stdmaps "maps"
	"net"
	"net/netip"

	"github.com/ebb-lb/ebb/maps"
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
	known.Flows[maps.FlowKey{Src: turned.Src, Dst: turned.Dst, Proto: after.key.Proto}] = f
	return rewrite(out, &after, turned), &known
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
