package plan

import (
	"fmt"
	stdmaps "maps"
	"net/netip"
	"slices"

	"github.com/ebb-lb/ebb/agent/endpoints"
	"github.com/ebb-lb/ebb/agent/ids"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// Where a map is full a service gets what is possible: never less because it
// wants more, and never a way to an endpoint that has left. What it lacks is
// reported, to be asked for again.

// lack notes that the service does not get all it wants.
func (b *builder) lack(err error) { b.short = append(b.short, err) }

// fit leaves out the frontends there is no room for; those the service has it
// keeps. Frontends are deleted before others are put, so what it gives up is
// room.
func (b *builder) fit(ws []wanted) {
	before := b.old.frontends()
	kept := 0
	for f := range b.claimed {
		if _, had := before[f]; had {
			kept++
		}
	}
	others := len(b.owners) - len(before)
	room := max(0, int(b.capacity.Frontends)-others-kept)
	if len(b.claimed)-kept <= room {
		return
	}
	b.lack(fmt.Errorf("put %d frontends: %w: %d of %d are in use by other services; raise --max-frontends",
		len(b.claimed), ids.ErrFull, others, b.capacity.Frontends))
	unfit := func(f maps.Frontend) bool {
		if _, had := before[f]; had {
			return false
		}
		room--
		return room < 0
	}
	for i := range ws {
		ws[i].internal = slices.DeleteFunc(ws[i].internal, unfit)
		ws[i].external = slices.DeleteFunc(ws[i].external, unfit)
	}
}

// fitRanges leaves out the source ranges there is no room for, so that their
// clients stay out; those the service port has it keeps. Ranges are put before
// others are deleted, so what it gives up is no room yet.
func (b *builder) fitRanges(id maps.ServicePortID, w wanted) map[netip.Prefix]struct{} {
	var had map[netip.Prefix]struct{}
	if pt := b.old.ports[id]; pt != nil {
		had = pt.ranges
	}
	room := int(b.capacity.SourceRanges) - b.ranges - b.newRanges
	fit := make(map[netip.Prefix]struct{}, len(w.ranges))
	for _, p := range slices.SortedFunc(stdmaps.Keys(w.ranges), netip.Prefix.Compare) {
		_, kept := had[p]
		if !kept && room <= 0 {
			continue
		}
		if fit[p] = struct{}{}; !kept {
			room--
			b.newRanges++
		}
	}
	if missing := len(w.ranges) - len(fit); missing > 0 {
		b.lack(fmt.Errorf("plan service port %s: put %d of %d source ranges: %w: %d are in use; raise --max-source-ranges",
			w.name, missing, len(w.ranges), ids.ErrFull, b.ranges))
	}
	return fit
}

// index gives e an index, or the one it has. After one was refused none is
// asked for again: the order of the endpoints decides who gets the last.
func (b *portBuilder) index(e service.Endpoint) (id maps.BackendID, generation uint32, ok bool) {
	id, generation, ok = b.backendIDs.Lookup(b.key(e))
	moved := ok && b.moved(id, e)
	if ok && !moved || b.noIndex {
		return id, generation, ok
	}
	lease, err := b.take(e)
	if err != nil && moved {
		return id, generation, true // its connections hang; that is better than none
	}
	if err != nil {
		b.noIndex = true
		b.lack(fmt.Errorf("plan service port %s: %w", b.port.name, err))
		return 0, 0, false
	}
	return lease.ID, lease.Generation, true
}

// moved reports whether the endpoint that has index id has come to this node with its
// address, or left it.
func (b *portBuilder) moved(id maps.BackendID, e service.Endpoint) bool {
	if b.old == nil {
		return false
	}
	had, ok := b.old.backends[id]
	return ok && changesPlace(had, b.backend(e, 0, maps.Active))
}

// changesPlace reports whether one of two backends is of this node, the other of another
// one. Where the node of one is not known nothing is.
func changesPlace(a, b maps.Backend) bool { return a.Local && b.Elsewhere || a.Elsewhere && b.Local }

// standIns returns what serves of the family of addr, for candidates none of
// which has an index.
func (b *portBuilder) standIns(all []service.Endpoint, local bool, addr netip.Addr) []service.Endpoint {
	return slices.DeleteFunc(ofFamily(all, addr), func(e service.Endpoint) bool {
		return !e.Serving || local && !endpoints.IsLocal(e, b.in.NodeName)
	})
}

// makeshift returns a region for members where there is none of the size it
// should have: one in use that leads to members only, else one with a slot for
// each, or fewer. What is free must do for other services too.
func (b *portBuilder) makeshift(members []maps.BackendID) maps.Table {
	if t, ok := b.partial(members); ok {
		// Another table of the service port may be in it already.
		if !slices.ContainsFunc(b.port.regions, func(have table) bool { return have.at == t.at }) {
			b.port.regions = append(b.port.regions, t)
		}
		return t.at
	}
	for size := uint32(len(members)); size > 0; size /= 2 {
		if at, err := b.regions.Take(size); err == nil {
			return b.write(at, members)
		}
	}
	return maps.Table{}
}

// partial returns the region of the service port that leads to most of members
// and to nobody else.
func (b *portBuilder) partial(members []maps.BackendID) (best table, ok bool) {
	if b.old == nil {
		return table{}, false
	}
	for _, t := range b.old.regions {
		stranger := func(id maps.BackendID) bool { _, is := slices.BinarySearch(members, id); return !is }
		if !slices.ContainsFunc(t.members, stranger) && len(t.members) > len(best.members) {
			best, ok = t, true
		}
	}
	return best, ok
}
