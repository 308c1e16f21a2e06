package statefuzz

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/rig"
)

// shape is what a world may be like.
type shape struct {
	name             string
	flows            uint32
	snatMin, snatMax uint16
	xdp              bool
}

// shapes: one with room for everything, one where flows and ports run out.
func shapes() []shape {
	return []shape{
		{name: "wide, XDP", flows: 4096, snatMin: 1024, snatMax: 29999, xdp: true},
		{name: "wide, TC", flows: 4096, snatMin: 1024, snatMax: 29999},
		{name: "narrow, XDP", flows: 12, snatMin: 2000, snatMax: 2007, xdp: true},
		{name: "narrow, TC", flows: 12, snatMin: 2000, snatMax: 2007},
	}
}

// narrow reports whether flows and ports run out.
func (s shape) narrow() bool { return s.flows < 100 }

// rigs are the programs with maps of two sizes, narrow last.
type rigs struct {
	rigs [2]*rig.Rig
	// generation is that of the last backend: none has an older one's routes.
	generation uint32
}

func newRigs(tb testing.TB) *rigs {
	tb.Helper()
	all := new(rigs)
	for i, s := range []shape{shapes()[0], shapes()[2]} {
		all.rigs[i] = rig.New(tb, rig.Config{
			Sizes: maps.Sizes{Flows: s.flows, HalfOpen: 2048}, SNATMin: s.snatMin, SNATMax: s.snatMax,
		})
	}
	return all
}

func (r *rigs) of(s shape) *rig.Rig {
	if s.narrow() {
		return r.rigs[1]
	}
	return r.rigs[0]
}

// The services: two addresses for each protocol, with the same pods behind.
const (
	vipPort  = 80
	podPort  = 8080
	services = 2
)

func vip(i int) netip.AddrPort {
	return netip.AddrPortFrom([]netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("203.0.113.11")}[i], vipPort)
}

func protos() []maps.Proto { return []maps.Proto{maps.TCP, maps.UDP, maps.SCTP} }

// world is the programs with tables as an agent writes them, and the model.
type world struct {
	*Model
	tb    testing.TB
	rigs  *rigs
	rig   *rig.Rig
	shape shape
	log   []string

	ids         map[backendKey]maps.BackendID // of those a pod has now
	generations map[maps.BackendID]uint32
	base        map[maps.BackendID]int // live count before the first flow
	next        maps.BackendID
	slot        uint32
	held        int // entries in flows, as of the last look
}

type backendKey struct {
	pod     *Host
	service maps.ServicePortID
}

func newWorld(tb testing.TB, all *rigs, s shape) *world {
	tb.Helper()
	r := all.of(s)
	w := &world{
		Model: NewModel(), tb: tb, rigs: all, rig: r, shape: s,
		ids: make(map[backendKey]maps.BackendID), base: make(map[maps.BackendID]int),
		generations: make(map[maps.BackendID]uint32),
	}
	w.Narrow = s.narrow()
	r.Reset(tb)
	for i := range services {
		for j, proto := range protos() {
			id := serviceID(i, j)
			w.must(r.Set.ServicePorts().Put(id, maps.ServicePort{Namespace: "test", Service: "s", Proto: proto}))
		}
	}
	for _, p := range w.Pods {
		if p.State == maps.Active {
			w.addBackends(p)
		}
	}
	w.writeTables()
	return w
}

func serviceID(vip, proto int) maps.ServicePortID {
	return maps.ServicePortID(1 + vip*len(protos()) + proto)
}

func (w *world) must(err error) {
	w.tb.Helper()
	if err != nil {
		w.fail("%v", err)
	}
}

// addBackends gives p an index in each service, as it has when it is new.
func (w *world) addBackends(p *Host) {
	for i := range services {
		for j := range protos() {
			k := backendKey{p, serviceID(i, j)}
			w.ids[k] = w.next
			w.next++
			w.rigs.generation++
			w.generations[w.ids[k]] = w.rigs.generation
			counts, err := w.rig.Set.Stats().Get(w.ids[k])
			w.must(err)
			w.base[w.ids[k]] = int(counts.Opened) - int(counts.Closed)
		}
	}
	w.putBackends(p)
}

func (w *world) putBackends(p *Host) {
	for i := range services {
		for j := range protos() {
			k := backendKey{p, serviceID(i, j)}
			w.must(w.rig.Set.Backends().Put(w.ids[k], maps.Backend{
				Addr: netip.AddrPortFrom(p.Addr, podPort), State: p.State, Local: p.Here, Generation: w.generations[w.ids[k]],
				InCluster: p.State == maps.Active, InLocal: p.State == maps.Active, ServicePort: k.service,
			}))
		}
	}
}

// writeTables writes fresh tables, then makes the frontends lead to them.
func (w *world) writeTables() {
	for i := range services {
		for j, proto := range protos() {
			id := serviceID(i, j)
			var slots []maps.BackendID
			for _, p := range w.Pods {
				if p.State == maps.Active {
					slots = append(slots, w.ids[backendKey{p, id}])
				}
			}
			// Each service spreads its clients in its own way.
			slots = slices.Concat(slots[i%len(slots):], slots[:i%len(slots)])
			table := maps.Table{Offset: w.slot, Length: uint32(len(slots))}
			w.slot += table.Length
			w.must(w.rig.Set.Slots().Write(table, slots))
			w.must(w.rig.Set.Frontends().Put(maps.Frontend{Addr: vip(i).Addr(), Port: vipPort, Proto: proto}, maps.Service{
				ServicePort: id, Cluster: table, Local: table, HasEndpoints: true,
			}))
		}
	}
}

// join makes p active: an index, tables with it.
func (w *world) join(p *Host) {
	p.State = maps.Active
	w.addBackends(p)
	w.writeTables()
}

// leave takes p out of the tables, if others are left, and then says so.
func (w *world) leave(p *Host, to maps.State) bool {
	if p.State == maps.Active && w.active() < 2 {
		return false
	}
	was := p.State
	p.State = to
	if was == maps.Gone {
		return true // nothing points at it
	}
	if was == maps.Active {
		w.writeTables()
	}
	w.putBackends(p)
	return true
}

func (w *world) active() int {
	n := 0
	for _, p := range w.Pods {
		if p.State == maps.Active {
			n++
		}
	}
	return n
}
