package plan

import (
	stdmaps "maps"
	"net/netip"
	"slices"
	"time"

	"github.com/ebb-lb/ebb/agent/ids"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// Planner makes plans. It keeps what is in the maps, indexed by service, and
// assumes that every plan is carried out before the next one is asked for;
// where that failed it must be replaced: see Reseed. The work for a plan is
// proportional to the services in its input.
//
// A Planner is not safe for concurrent use.
type Planner struct {
	capacity   Capacities
	portIDs    *ids.Ports
	backendIDs *ids.Backends
	regions    *ids.Regions

	services map[service.Name]*owned
	owners   map[maps.Frontend]service.Name
	book     book // of addresses
	// waiting are the services that claim a frontend of another one.
	waiting map[maps.Frontend]map[service.Name]struct{}

	// What the last plan let go. Its writes were done at some time before the
	// next plan: only then the grace period begins.
	released []maps.Table
	retired  map[maps.BackendID]struct{}
	dropped  map[maps.ServicePortID]struct{}
	leaving  int // source ranges
	// ranges is how many source ranges the map holds with those leaving.
	ranges int
	// unclear are regions that several service ports point at, or that are not
	// within the map: nobody may write them.
	unclear []maps.Table
}

// owned is what one service has in the maps. It is never changed, only
// replaced as a whole, so a service that cannot be planned keeps what it had.
type owned struct {
	ports     map[maps.ServicePortID]*port
	addresses map[netip.Addr]maps.AddressFlags
	// lost are the frontends the service waits for, view is what it will then
	// be planned from; nil if it waits for none.
	lost []maps.Frontend
	view *service.View
}

// port is what one service port has in the maps.
type port struct {
	name      maps.ServicePort
	named     bool // has an entry in service_ports
	frontends map[maps.Frontend]maps.Service
	backends  map[maps.BackendID]maps.Backend // active and draining ones
	regions   []table
	ranges    map[netip.Prefix]struct{} // clients of restricted frontends
}

// table is a region and what is in it.
type table struct {
	at      maps.Table
	members []maps.BackendID // sorted
	// found is the content found at the start, until it has been compared
	// with what it should be.
	found []maps.BackendID
}

// Plan returns the writes that bring the maps to what in asks for, and the
// errors of the services for which that is not completely possible: a
// *ConflictError for each frontend that belongs to another service, or an error
// wrapping ids.ErrFull where a map has no room. The rest of the service is
// planned, see short.go. Errors of a service may be joined.
//
// now must not go backwards from call to call.
func (p *Planner) Plan(now time.Time, in Input) (Plan, map[service.Name]error) {
	p.settle(now)
	p.backendIDs.Begin(now, in.Live)
	r := newRound(p, in)
	r.deletions()
	for name, ok := r.next(); ok; name, ok = r.next() {
		r.plan(name)
	}
	plan := r.journal.plan()
	p.book.plan(in.Full, &plan)
	return plan, r.failures
}

// Used returns how many entries of each map are taken. Gone backends count as
// long as their index was not used again.
func (p *Planner) Used() Capacities {
	return Capacities{
		Frontends: uint32(len(p.owners)), ServicePorts: uint32(p.portIDs.Len()),
		Backends: uint32(p.backendIDs.Len()), Slots: p.regions.Used(), SourceRanges: uint32(p.ranges),
	}
}

// settle starts the grace period of what the last plan let go.
func (p *Planner) settle(now time.Time) {
	for _, t := range p.released {
		p.regions.Release(t, now.Add(Grace))
	}
	p.released = nil
	p.regions.Reclaim(now)
	for _, id := range slices.Sorted(stdmaps.Keys(p.retired)) {
		p.backendIDs.Retire(id, now)
	}
	clear(p.retired)
	for id := range p.dropped {
		p.portIDs.Release(id)
	}
	clear(p.dropped)
	p.ranges, p.leaving = p.ranges-p.leaving, 0
}

// wait registers name as claimant of frontends that belong to others.
func (p *Planner) wait(name service.Name, lost []maps.Frontend) {
	for _, f := range lost {
		if p.waiting[f] == nil {
			p.waiting[f] = make(map[service.Name]struct{})
		}
		p.waiting[f][name] = struct{}{}
	}
}

// unwait is the inverse of wait.
func (p *Planner) unwait(name service.Name, lost []maps.Frontend) {
	for _, f := range lost {
		if delete(p.waiting[f], name); len(p.waiting[f]) == 0 {
			delete(p.waiting, f)
		}
	}
}

// distinct returns the sorted set of the given indexes.
func distinct(slots []maps.BackendID) []maps.BackendID {
	seen := make(map[maps.BackendID]struct{})
	for _, id := range slots {
		seen[id] = struct{}{}
	}
	return slices.Sorted(stdmaps.Keys(seen))
}
