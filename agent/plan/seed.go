package plan

import (
	"cmp"
	stdmaps "maps"
	"net/netip"
	"slices"

	"github.com/ebb-lb/ebb/agent/ids"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// New returns a Planner that goes on from what is in the maps, whoever wrote
// it. Backends that are gone count as gone since the first plan. Regions that
// nothing points at are free at once: a caller that has written to the maps
// before in the same process uses Reseed instead.
//
// Entries whose service port has no name belong to no service: the first full
// plan removes them. The Planner does not keep have, but its tables.
func New(capacity Capacities, have State) *Planner {
	p := &Planner{
		capacity:   capacity,
		portIDs:    ids.NewPorts(capacity.ServicePorts, have.ServicePorts),
		backendIDs: ids.NewBackends(capacity.Backends, Grace, have.Backends),
		services:   make(map[service.Name]*owned),
		owners:     make(map[maps.Frontend]service.Name, len(have.Frontends)),
		waiting:    make(map[maps.Frontend]map[service.Name]struct{}),
		book:       newBook(have.Addresses),
		retired:    make(map[maps.BackendID]struct{}),
		dropped:    make(map[maps.ServicePortID]struct{}),
	}
	s := seeder{Planner: p, have: have, ports: make(map[maps.ServicePortID]*port)}
	s.seedPorts()
	s.seedBackends()
	s.seedFrontends()
	s.seedRanges()
	s.seedRegions()
	return p
}

// Reseed returns a Planner that goes on from have, which was read from the
// maps after a plan of p could not be carried out completely, and that remembers
// since when regions and backends known to p are out of use. p must not be
// used any more.
func (p *Planner) Reseed(have State) *Planner {
	next := New(p.capacity, have)
	for _, h := range p.regions.Held() {
		for _, t := range next.regions.Reserve(h.Table) {
			next.regions.Release(t, h.Until)
		}
	}
	for _, t := range slices.Concat(p.released, p.unclear, p.inUse()) {
		next.released = append(next.released, next.regions.Reserve(t)...)
	}
	for id := range next.retired {
		if since, ok := p.backendIDs.GoneSince(id, have.Backends[id].Generation); ok {
			next.backendIDs.Retire(id, since)
			delete(next.retired, id)
		}
	}
	return next
}

// inUse returns the regions of all services, by offset.
func (p *Planner) inUse() []maps.Table {
	var used []maps.Table
	for _, o := range p.services {
		for _, pt := range o.ports {
			for _, t := range pt.regions {
				used = append(used, t.at)
			}
		}
	}
	slices.SortFunc(used, func(a, b maps.Table) int { return cmp.Compare(a.Offset, b.Offset) })
	return used
}

type seeder struct {
	*Planner
	have  State
	ports map[maps.ServicePortID]*port
}

// port returns the port with that id, made on first use.
func (s *seeder) port(id maps.ServicePortID) *port {
	if pt, ok := s.ports[id]; ok {
		return pt
	}
	name, named := s.have.ServicePorts[id]
	pt := &port{
		name: name, named: named,
		frontends: make(map[maps.Frontend]maps.Service),
		backends:  make(map[maps.BackendID]maps.Backend),
		ranges:    make(map[netip.Prefix]struct{}),
	}
	s.ports[id] = pt
	owner := serviceOf(pt)
	if s.services[owner] == nil {
		s.services[owner] = &owned{ports: make(map[maps.ServicePortID]*port)}
	}
	s.services[owner].ports[id] = pt
	return pt
}

// serviceOf returns the service pt belongs to.
func serviceOf(pt *port) service.Name {
	if pt.name.Namespace == "" && pt.name.Service == "" {
		return service.Name{Name: unnamed}
	}
	return service.Name{Namespace: pt.name.Namespace, Name: pt.name.Service}
}

// unnamed stands, without a namespace, for the service of entries that belong
// to none. No Service can have this name.
const unnamed = "(unnamed)"

func (s *seeder) seedPorts() {
	for id := range s.have.ServicePorts {
		s.port(id)
	}
}

func (s *seeder) seedBackends() {
	for id, b := range s.have.Backends {
		if b.State == maps.Free {
			continue
		}
		s.portIDs.Hold(b.ServicePort)
		if b.State == maps.Gone {
			s.retired[id] = struct{}{}
			continue
		}
		s.port(b.ServicePort).backends[id] = b
	}
}

func (s *seeder) seedFrontends() {
	for f, v := range s.have.Frontends {
		pt := s.port(v.ServicePort)
		pt.frontends[f] = v
		s.owners[f] = serviceOf(pt)
		if !pt.named {
			s.portIDs.Hold(v.ServicePort)
		}
	}
}

func (s *seeder) seedRanges() {
	for r := range s.have.SourceRanges {
		pt := s.port(r.ServicePort)
		pt.ranges[r.Prefix] = struct{}{}
		if !pt.named {
			s.portIDs.Hold(r.ServicePort)
		}
	}
	s.ranges = len(s.have.SourceRanges)
}

// claim is one port's use of a region.
type claim struct {
	port *port
	at   maps.Table
}

func (s *seeder) seedRegions() {
	claims := s.claims()
	used := make([]maps.Table, len(claims))
	for i, c := range claims {
		used[i] = c.at
	}
	s.regions = ids.NewRegions(s.capacity.Slots, used)
	for i, shared := range overlaps(claims) {
		c := claims[i]
		slots, ok := s.have.Tables[c.at]
		if !ok {
			slots = nil // and so nothing it could be kept for
		}
		if shared || endOf(c.at) > uint64(s.capacity.Slots) {
			s.unclear = append(s.unclear, c.at)
			continue
		}
		c.port.regions = append(c.port.regions, table{at: c.at, members: distinct(slots), found: slots})
	}
}

// claims returns which port uses which region, by offset.
func (s *seeder) claims() []claim {
	seen := make(map[claim]struct{})
	for _, v := range s.have.Frontends {
		for _, t := range []maps.Table{v.Cluster, v.Local} {
			if t.Length > 0 {
				seen[claim{s.ports[v.ServicePort], t}] = struct{}{}
			}
		}
	}
	return slices.SortedFunc(stdmaps.Keys(seen), func(a, b claim) int {
		return cmp.Or(cmp.Compare(a.at.Offset, b.at.Offset), cmp.Compare(a.at.Length, b.at.Length))
	})
}

// overlaps tells which of the claims, sorted by offset, share slots with
// another one. Nobody writes such maps; a release of one must not hand out
// slots of the other.
func overlaps(claims []claim) []bool {
	shared := make([]bool, len(claims))
	furthest := -1 // the claim that reaches furthest so far
	for i, c := range claims {
		if furthest >= 0 && uint64(c.at.Offset) < endOf(claims[furthest].at) {
			shared[i], shared[furthest] = true, true
		}
		if furthest < 0 || endOf(c.at) > endOf(claims[furthest].at) {
			furthest = i
		}
	}
	return shared
}

func endOf(t maps.Table) uint64 { return uint64(t.Offset) + uint64(t.Length) }
