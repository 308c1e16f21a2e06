// Package statefuzz is what the two ends of connections would see of them: hosts
// with sockets that number, answer and refuse segments as real ones do, and the
// rules about who may hear what. It knows no maps and runs no program; its tests
// carry the packets through the real programs and ask it about each.
package statefuzz

import (
	"net/netip"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// Host is a machine or a pod with sockets.
type Host struct {
	Name string
	Addr netip.Addr
	// Here: a pod of this node, behind a link. Else beyond the uplink.
	Here bool
	// Serves: it is a backend. What follows is about backends.
	Serves  bool
	Alive   bool       // else it hears nothing and says nothing
	Listens bool       // else it refuses who begins
	State   maps.State // Active: it is in the tables
	Ends    map[maps.FlowKey]*End
}

// Phase is where an end is in its life.
type Phase uint8

// The phases. Protocols without connections know the last but one.
const (
	Dead Phase = iota // forgotten, or over
	Called
	Answering
	Established
	Waiting // over, but its host remembers (TIME_WAIT)
)

// End is one end of a connection, as its host has it.
type End struct {
	Host   *Host
	Key    maps.FlowKey // Src: its own address
	Client bool
	Phase  Phase

	First, Next, Want uint32 // TCP: own first number, next one, next one expected
	Tag, PeerTag      uint32 // SCTP
	cookies           map[uint32]cookie
	SentFIN, FINHeard bool // it has sent one, and the other end acknowledged it
	GotFIN            bool

	Peer   *End        // whom it talks to, once it knows
	Origin *End        // a server's: the client whose SYN, INIT or datagram began it; nil: forged
	Last   packet.Spec // what it would repeat
	Flow   *Flow
	Called *Host  // a client's: who heard its last SYN; nil: not known
	Asked  uint32 // a client's, UDP: tick of its last question

	Evicted bool // a server's: the node forgot its half before it was part of a flow
}

// Packet is one under way to the node.
type Packet struct {
	packet.Spec
	From   *Host
	Here   bool // it comes in by a pod's link
	End    *End // nil: of no connection
	Forged bool // by somebody who sees nothing of the ends
}

// Key is the tuple of p.
func (p *Packet) Key() maps.FlowKey { return maps.FlowKey{Src: p.Src, Dst: p.Dst, Proto: p.Proto} }

// Opens reports whether p may be the first packet of a flow.
func (p *Packet) Opens() bool {
	switch p.Proto {
	case maps.TCP:
		return p.Flags&(packet.SYN|packet.ACK|packet.RST) == packet.SYN
	case maps.SCTP:
		return p.Chunk == packet.Init
	}
	return true
}

// Turned is the tuple of an answer to what has tuple k.
func Turned(k maps.FlowKey) maps.FlowKey {
	return maps.FlowKey{Src: k.Dst, Dst: k.Src, Proto: k.Proto}
}

// Model is all hosts, what is under way between them, and what was said.
type Model struct {
	Clients, Pods []*Host
	Queue         []*Packet
	Flows         []*Flow
	Now           uint32 // ticks since the beginning
	number        uint32 // last one a TCP end began with

	// said are pairs of tuples between which a backend's datagram passed, proved
	// those in which a client's followed.
	said, proved map[[2]maps.FlowKey]bool

	// Given is who got a first packet of a tuple.
	Given map[maps.FlowKey]map[*Host]bool
	// Narrow: ports are so few that what is over or unproved loses them.
	Narrow bool
}

// NewModel returns the cast.
func NewModel() *Model {
	m := &Model{
		Given: make(map[maps.FlowKey]map[*Host]bool), number: 1 << 28,
		said: make(map[[2]maps.FlowKey]bool), proved: make(map[[2]maps.FlowKey]bool),
	}
	for _, c := range []struct {
		name, addr string
		here       bool
	}{{"anna", "192.0.2.10", false}, {"bert", "192.0.2.11", false}, {"pod", "10.244.1.99", true}} {
		m.Clients = append(m.Clients, newHost(c.name, c.addr, c.here))
	}
	for _, b := range []struct {
		name, addr string
		here       bool
	}{
		{"L1", "10.244.1.7", true}, {"L2", "10.244.1.8", true}, {"L3", "10.244.1.9", true},
		{"R1", "10.244.2.7", false}, {"R2", "10.244.2.8", false},
	} {
		h := newHost(b.name, b.addr, b.here)
		h.Serves, h.Listens, h.State = true, true, maps.Active
		m.Pods = append(m.Pods, h)
	}
	m.Pods[2].State = maps.Gone // comes later
	return m
}

func newHost(name, addr string, here bool) *Host {
	return &Host{Name: name, Addr: netip.MustParseAddr(addr), Here: here, Alive: true, Ends: make(map[maps.FlowKey]*End)}
}

// Host returns who has an address, nil for nobody.
func (m *Model) Host(a netip.Addr) *Host {
	for _, hosts := range [][]*Host{m.Clients, m.Pods} {
		for _, h := range hosts {
			if h.Addr == a {
				return h
			}
		}
	}
	return nil
}

// Crash makes h forget all its connections.
func (h *Host) Crash() {
	for _, e := range h.Ends {
		e.Phase = Dead
	}
	clear(h.Ends)
}

// drop makes h forget e.
func (h *Host) drop(e *End) {
	e.Phase = Dead
	if h.Ends[e.Key] == e {
		delete(h.Ends, e.Key)
	}
}

// add makes e an end of h in the place of what had its tuple.
func (h *Host) add(e *End) *End {
	if old := h.Ends[e.Key]; old != nil {
		old.Phase = Dead
	}
	e.Host = h
	h.Ends[e.Key] = e
	return e
}

// enqueue puts packets under way. What is too much is lost.
func (m *Model) enqueue(packets ...*Packet) {
	const most = 48
	m.Queue = append(m.Queue, packets...)
	if n := len(m.Queue) - most; n > 0 {
		m.Queue = append([]*Packet(nil), m.Queue[n:]...)
	}
}

// take removes the i-th of what is under way.
func (m *Model) take(i int) *Packet {
	p := m.Queue[i]
	m.Queue = append(append([]*Packet(nil), m.Queue[:i]...), m.Queue[i+1:]...)
	return p
}

// say is a packet of e.
func (e *End) say(s packet.Spec) *Packet {
	s.Src, s.Dst, s.Proto = e.Key.Src, e.Key.Dst, e.Key.Proto
	return &Packet{Spec: s, From: e.Host, Here: e.Host.Here, End: e}
}

// Hear is what h does with a packet that arrived, and what it answers. from is
// what was sent, s what it has become.
func (m *Model) Hear(h *Host, from *Packet, s packet.Spec) []*Packet {
	if !h.Alive {
		return nil
	}
	switch s.Proto {
	case maps.TCP:
		return m.hearTCP(h, from, s)
	case maps.SCTP:
		return m.hearSCTP(h, from, s)
	}
	return m.hearUDP(h, from, s)
}
