package plan

import (
	"slices"

	"github.com/ebb-lb/ebb/agent/ids"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// commit replaces what name has by next and notes the difference. It cannot
// fail. What is let go is kept from reuse until the plan is carried out and
// the grace period is over.
func (r *round) commit(name service.Name, next *owned, writes []TableWrite) {
	old := r.services[name]
	if old == nil {
		old = &owned{}
	}
	r.commitPorts(name, old, next)
	r.commitBackends(name, old, next)
	r.commitRegions(old, next, writes)
	r.commitRanges(name, old, next)
	r.book.replace(name, old.addresses, next.addresses)
	free := r.commitFrontends(name, old, next)

	r.unwait(name, old.lost)
	r.wait(name, next.lost)
	if r.services[name] = next; len(next.ports)+len(next.lost) == 0 {
		delete(r.services, name)
	}
	r.wake(free)
}

func (r *round) commitPorts(name service.Name, old, next *owned) {
	for id, pt := range old.ports {
		if _, stays := next.ports[id]; !stays && pt.named {
			record(r.journal.ports, id, entry[maps.ServicePort]{pt.name, name, true}, entry[maps.ServicePort]{})
			r.dropped[id] = struct{}{}
		}
	}
	for id, pt := range next.ports {
		delete(r.dropped, id)
		if before := old.ports[id]; before == nil || !before.named {
			record(r.journal.ports, id, entry[maps.ServicePort]{}, entry[maps.ServicePort]{pt.name, name, true})
		}
	}
}

func (r *round) commitBackends(name service.Name, old, next *owned) {
	before, after := old.backends(), next.backends()
	fresh := make(map[ids.BackendKey]maps.Backend)
	for id, v := range after {
		if _, had := before[id]; !had {
			fresh[ids.BackendKey{Port: v.ServicePort, Addr: v.Addr}] = v
		}
	}
	for id, v := range before {
		if _, stays := after[id]; !stays {
			gone := v
			gone.State, gone.InCluster, gone.InLocal = maps.Gone, false, false
			gone.Moved = changesPlace(v, fresh[ids.BackendKey{Port: v.ServicePort, Addr: v.Addr}])
			record(r.journal.backends, id, entry[maps.Backend]{v, name, true}, entry[maps.Backend]{gone, name, true})
			r.retired[id] = struct{}{}
		}
	}
	for id, v := range after {
		delete(r.retired, id)
		if had, ok := before[id]; !ok || had != v {
			record(r.journal.backends, id, entry[maps.Backend]{had, name, ok}, entry[maps.Backend]{v, name, true})
		}
	}
}

func (r *round) commitRegions(old, next *owned, writes []TableWrite) {
	kept := make(map[maps.Table]struct{})
	for _, pt := range next.ports {
		for _, t := range pt.regions {
			kept[t.at] = struct{}{}
		}
	}
	for _, pt := range old.ports {
		for _, t := range pt.regions {
			if _, stays := kept[t.at]; !stays {
				r.released = append(r.released, t.at)
				delete(r.journal.tables, t.at)
			}
		}
	}
	for _, w := range writes {
		r.journal.tables[w.Table] = w
	}
}

func (r *round) commitRanges(name service.Name, old, next *owned) {
	before, after := old.ranges(), next.ranges()
	yes, no := entry[struct{}]{owner: name, ok: true}, entry[struct{}]{owner: name}
	for s := range before {
		if _, stays := after[s]; !stays {
			record(r.journal.ranges, s, yes, no)
			r.leaving++
		}
	}
	for s := range after {
		if _, had := before[s]; !had {
			record(r.journal.ranges, s, no, yes)
			r.Planner.ranges++
		}
	}
}

// commitFrontends returns the frontends that are nobody's now, sorted.
func (r *round) commitFrontends(name service.Name, old, next *owned) []maps.Frontend {
	before, after := old.frontends(), next.frontends()
	var free []maps.Frontend
	for f, v := range before {
		if _, stays := after[f]; !stays {
			record(r.journal.frontends, f, entry[maps.Service]{v, name, true}, entry[maps.Service]{})
			delete(r.owners, f)
			free = append(free, f)
		}
	}
	for f, v := range after {
		r.owners[f] = name
		if had, ok := before[f]; !ok || had != v {
			record(r.journal.frontends, f, entry[maps.Service]{had, name, ok}, entry[maps.Service]{v, name, true})
		}
	}
	slices.SortFunc(free, maps.Frontend.Compare)
	return free
}

// frontends returns the frontends of all ports.
func (o *owned) frontends() map[maps.Frontend]maps.Service {
	all := make(map[maps.Frontend]maps.Service)
	for _, pt := range o.ports {
		for f, v := range pt.frontends {
			all[f] = v
		}
	}
	return all
}

// ranges returns the source ranges of all ports.
func (o *owned) ranges() map[maps.SourceRange]struct{} {
	all := make(map[maps.SourceRange]struct{})
	for id, pt := range o.ports {
		for p := range pt.ranges {
			all[maps.SourceRange{ServicePort: id, Prefix: p}] = struct{}{}
		}
	}
	return all
}

// backends returns the backends of all ports.
func (o *owned) backends() map[maps.BackendID]maps.Backend {
	all := make(map[maps.BackendID]maps.Backend)
	for _, pt := range o.ports {
		for id, v := range pt.backends {
			all[id] = v
		}
	}
	return all
}
