package plan

import (
	"cmp"
	stdmaps "maps"
	"slices"

	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// entry is a map entry and the service it belongs to; ok is false if there is
// none.
type entry[V comparable] struct {
	value V
	owner service.Name
	ok    bool
}

// change is what becomes of an entry in one plan.
type change[V comparable] struct {
	before, after entry[V]
}

func (c change[V]) none() bool {
	return c.before.ok == c.after.ok && c.before.value == c.after.value
}

// journal collects changes by key. A service may be planned twice, a frontend
// may pass from one to another: what counts is the first state and the last.
type journal struct {
	frontends map[maps.Frontend]change[maps.Service]
	ports     map[maps.ServicePortID]change[maps.ServicePort]
	backends  map[maps.BackendID]change[maps.Backend]
	tables    map[maps.Table]TableWrite
	ranges    map[maps.SourceRange]change[struct{}]
}

func newJournal() journal {
	return journal{
		frontends: make(map[maps.Frontend]change[maps.Service]),
		ports:     make(map[maps.ServicePortID]change[maps.ServicePort]),
		backends:  make(map[maps.BackendID]change[maps.Backend]),
		tables:    make(map[maps.Table]TableWrite),
		ranges:    make(map[maps.SourceRange]change[struct{}]),
	}
}

func record[K, V comparable](changes map[K]change[V], key K, before, after entry[V]) {
	if c, ok := changes[key]; ok {
		before = c.before
	}
	changes[key] = change[V]{before: before, after: after}
}

// plan puts the changes in order.
func (j *journal) plan() Plan {
	var p Plan
	j.planFrontends(&p)
	j.planPorts(&p)
	j.planBackends(&p)
	j.planRanges(&p)
	p.WriteTables = slices.SortedFunc(stdmaps.Values(j.tables), func(a, b TableWrite) int {
		return cmp.Or(a.Service.Compare(b.Service), cmp.Compare(a.Table.Offset, b.Table.Offset))
	})
	return p
}

func (j *journal) planFrontends(p *Plan) {
	for f, c := range j.frontends {
		switch {
		case c.none():
		case !c.after.ok:
			p.DeleteFrontends = append(p.DeleteFrontends, FrontendDelete{Service: c.before.owner, Frontend: f})
		default:
			put := FrontendPut{Service: c.after.owner, Frontend: f, Value: c.after.value}
			if c.before.ok && c.before.owner != c.after.owner {
				put.From = c.before.owner
			}
			p.PutFrontends = append(p.PutFrontends, put)
		}
	}
	slices.SortFunc(p.DeleteFrontends, func(a, b FrontendDelete) int {
		return cmp.Or(a.Service.Compare(b.Service), a.Frontend.Compare(b.Frontend))
	})
	slices.SortFunc(p.PutFrontends, func(a, b FrontendPut) int {
		return cmp.Or(a.Service.Compare(b.Service), a.Frontend.Compare(b.Frontend))
	})
}

func (j *journal) planPorts(p *Plan) {
	for id, c := range j.ports {
		switch {
		case c.none():
		case !c.after.ok:
			p.DeleteServicePorts = append(p.DeleteServicePorts, ServicePortDelete{Service: c.before.owner, ID: id})
		default:
			p.PutServicePorts = append(p.PutServicePorts, ServicePortPut{Service: c.after.owner, ID: id, Port: c.after.value})
		}
	}
	slices.SortFunc(p.DeleteServicePorts, func(a, b ServicePortDelete) int {
		return cmp.Or(a.Service.Compare(b.Service), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(p.PutServicePorts, func(a, b ServicePortPut) int {
		return cmp.Or(a.Service.Compare(b.Service), cmp.Compare(a.ID, b.ID))
	})
}

func (j *journal) planRanges(p *Plan) {
	for r, c := range j.ranges {
		switch {
		case c.none():
		case c.after.ok:
			p.PutRanges = append(p.PutRanges, RangeWrite{Service: c.after.owner, Range: r})
		default:
			p.DeleteRanges = append(p.DeleteRanges, RangeWrite{Service: c.before.owner, Range: r})
		}
	}
	order := func(a, b RangeWrite) int {
		return cmp.Or(a.Service.Compare(b.Service), a.Range.Compare(b.Range))
	}
	slices.SortFunc(p.PutRanges, order)
	slices.SortFunc(p.DeleteRanges, order)
}

func (j *journal) planBackends(p *Plan) {
	for id, c := range j.backends {
		put := BackendPut{Service: c.after.owner, ID: id, Backend: c.after.value}
		switch {
		case c.none(), !c.before.ok && put.Backend.State == maps.Gone:
			// Nothing changed, or came and went within the plan.
		case put.Backend.State == maps.Gone:
			p.RetireBackends = append(p.RetireBackends, put)
		default:
			p.PutBackends = append(p.PutBackends, put)
		}
	}
	byID := func(a, b BackendPut) int {
		return cmp.Or(a.Service.Compare(b.Service), cmp.Compare(a.ID, b.ID))
	}
	slices.SortFunc(p.PutBackends, byID)
	slices.SortFunc(p.RetireBackends, byID)
}
