package fuzz

import (
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// The source ports of packets to other nodes. What is there of them from the
// beginning lies at the lower end.
const snatMin, snatMax = 1024, 29999

// The ports of the services, and of the clients by what is known of them.
const (
	localPort, remotePort, emptyPort = 80, 81, 82

	establishedPort, answeredPort, strangerPort = 40001, 40002, 40003
)

// family is one address family's cast.
type family struct {
	client, vip, node netip.Addr
	local, remote     netip.Addr // of the backends
}

func families() []family {
	a := netip.MustParseAddr
	return []family{
		{a("192.0.2.10"), a("203.0.113.10"), rig.Node4, a("10.244.1.7"), a("10.244.2.7")},
		{a("2001:db8:2::10"), a("2001:db8:113::10"), rig.Node6, a("fd00:244:1::7"), a("fd00:244:2::7")},
	}
}

var protos = [...]maps.Proto{maps.TCP, maps.UDP, maps.SCTP}

// dialogue is one connection of the fixed world.
type dialogue struct {
	proto       maps.Proto
	client, vip netip.AddrPort
	source      netip.AddrPort // who the backend thinks the client is
	backend     netip.AddrPort
	remote      bool
	established bool // else its backend has answered, its client not yet
}

// dialogues are all connections of the world: established ones, and of TCP
// and SCTP answered ones, to a local and a remote backend.
func dialogues() []dialogue {
	var all []dialogue
	for _, f := range families() {
		for _, proto := range protos {
			for _, client := range []uint16{establishedPort, answeredPort} {
				if proto == maps.UDP && client == answeredPort {
					continue
				}
				all = append(all, f.dialogue(proto, client, false), f.dialogue(proto, client, true))
			}
		}
	}
	return all
}

func (f family) dialogue(proto maps.Proto, client uint16, remote bool) dialogue {
	d := dialogue{
		proto: proto, remote: remote, established: client == establishedPort,
		client: netip.AddrPortFrom(f.client, client), vip: netip.AddrPortFrom(f.vip, localPort),
		backend: netip.AddrPortFrom(f.local, 8080),
	}
	d.source = d.client
	if remote {
		d.vip = netip.AddrPortFrom(f.vip, remotePort)
		d.backend = netip.AddrPortFrom(f.remote, 8080)
		d.source = netip.AddrPortFrom(f.node, snatMin+client-establishedPort)
	}
	return d
}

// halves are the two entries of d, forward first, without what only maps know.
func (d dialogue) halves() (keys [2]maps.FlowKey, flows [2]maps.Flow) {
	var remote maps.FlowFlags
	if d.remote {
		remote = maps.FlowRemote
	}
	keys[0] = maps.FlowKey{Src: d.client, Dst: d.vip, Proto: d.proto}
	flows[0] = maps.Flow{Src: d.source, Dst: d.backend, Flags: remote}
	keys[1] = maps.FlowKey{Src: d.backend, Dst: d.source, Proto: d.proto}
	flows[1] = maps.Flow{Src: d.vip, Dst: d.client, Flags: remote | maps.FlowReverse}
	if !d.established {
		for i := range flows { // what proves the next packet of each direction, see spec()
			flows[i].Flags |= maps.FlowReplied
			flows[i].Ack, flows[i].End = d.proof(), d.proof()
		}
	}
	return keys, flows
}

// proof is the acknowledgement number or tag of the packets of d, see spec().
func (d dialogue) proof() uint32 {
	if d.proto == maps.SCTP {
		return 1 + uint32(d.client.Port())
	}
	return 2000
}

// newWorld is what the reference knows of the fixed world.
func newWorld() *World {
	w := &World{
		Services: make(map[maps.Frontend]Backend), Flows: make(map[maps.FlowKey]maps.Flow),
		Answered: make(map[maps.FlowKey]bool),
		Node4:    rig.Node4, Node6: rig.Node6, MTU: 1500,
		NodeMAC: rig.NodeMAC, BackendMAC: rig.OtherMAC, ClientMAC: rig.GatewayMAC,
	}
	for _, f := range families() {
		for _, proto := range protos {
			w.Services[maps.Frontend{Addr: f.vip, Port: localPort, Proto: proto}] = Backend{netip.AddrPortFrom(f.local, 8080), true}
			w.Services[maps.Frontend{Addr: f.vip, Port: remotePort, Proto: proto}] = Backend{netip.AddrPortFrom(f.remote, 8080), false}
			w.Services[maps.Frontend{Addr: f.vip, Port: emptyPort, Proto: proto}] = Backend{}
		}
	}
	for _, d := range dialogues() {
		keys, flows := d.halves()
		for i := range keys {
			w.Flows[keys[i]] = flows[i]
		}
		if !d.established {
			w.Answered[keys[0]] = true
		}
	}
	return w
}

// pair is the real programs and the reference, in the same World.
type pair struct {
	rig      *rig.Rig
	world    *World
	backends map[netip.AddrPort]map[maps.Proto]maps.BackendID
}

func newPair(tb testing.TB) *pair {
	tb.Helper()
	p := &pair{
		rig: rig.New(tb, rig.Config{
			Sizes:   maps.Sizes{Flows: 1024, HalfOpen: 1024},
			SNATMin: snatMin, SNATMax: snatMax,
		}),
		world:    newWorld(),
		backends: make(map[netip.AddrPort]map[maps.Proto]maps.BackendID),
	}
	for fe, b := range p.world.Services {
		if (b == Backend{}) {
			p.rig.AddService(tb, fe)
			continue
		}
		if p.backends[b.Addr] == nil {
			p.backends[b.Addr] = make(map[maps.Proto]maps.BackendID)
		}
		_, p.backends[b.Addr][fe.Proto] = p.rig.AddService(tb, fe, rig.Backend(b.Addr.String(), b.Local))
	}
	return p
}

// restore makes the connections what they were in the beginning, whatever has
// been sent since.
func (p *pair) restore(tb testing.TB) {
	tb.Helper()
	p.rig.ResetFlows(tb)
	for _, d := range dialogues() {
		table := p.rig.Set.HalfOpen()
		if d.established {
			table = p.rig.Set.Flows()
		}
		keys, flows := d.halves()
		for i := range keys {
			flows[i].Backend, flows[i].Generation = p.backends[d.backend][d.proto], 1
			if err := table.Put(keys[i], flows[i]); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

// spec is a packet of d's client, or of its backend.
func (d dialogue) spec(reply bool, flags packet.Flags) packet.Spec {
	s := packet.Spec{
		SrcMAC: rig.GatewayMAC, DstMAC: rig.NodeMAC, Src: d.client, Dst: d.vip,
		Proto: d.proto, Flags: flags, Seq: 1000, Ack: 2000, Payload: []byte("of odd size"),
	}
	if reply {
		s.Src, s.Dst = d.backend, d.source
	}
	if d.proto == maps.SCTP {
		s.Flags, s.Chunk, s.Tag = 0, chunk(flags), 1+uint32(d.client.Port())
		if s.Chunk == packet.Init {
			s.Tag = 0
		}
	}
	return s
}

// chunk is what SCTP says where TCP has flags.
func chunk(flags packet.Flags) packet.Chunk {
	switch {
	case flags == packet.SYN:
		return packet.Init
	case flags&packet.SYN != 0:
		return packet.InitAck
	case flags&packet.RST != 0:
		return packet.Abort
	case flags&packet.FIN != 0:
		return packet.ShutdownComplete
	}
	return packet.Data
}
