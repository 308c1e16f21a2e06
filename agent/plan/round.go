package plan

import (
	"errors"
	stdmaps "maps"
	"slices"

	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// round is the making of one plan. Services are planned in the order of their
// names, so that of several that want a free frontend the smallest name gets
// it; one that gives up a frontend makes those that wait for it be planned
// (again) in the same round.
type round struct {
	*Planner
	in       Input
	journal  journal
	failures map[service.Name]error
	views    map[service.Name]service.View // still to be planned
	queue    []service.Name                // their names, sorted
}

func newRound(p *Planner, in Input) *round {
	r := &round{
		Planner: p, in: in, journal: newJournal(),
		failures: make(map[service.Name]error),
		views:    make(map[service.Name]service.View, len(in.Services)),
	}
	for _, v := range in.Services {
		r.views[v.Name] = v
	}
	return r
}

// deletions plans what has no service any more, before anything else: what it
// gives up is free for the rest. It leaves the others in the queue.
func (r *round) deletions() {
	gone := make(map[service.Name]struct{})
	for name, v := range r.views {
		if v.Service == nil {
			gone[name] = struct{}{}
			delete(r.views, name)
		}
	}
	if r.in.Full {
		for name := range r.services {
			if _, ok := r.views[name]; !ok {
				gone[name] = struct{}{}
			}
		}
	}
	r.queue = slices.SortedFunc(stdmaps.Keys(r.views), service.Name.Compare)
	// None of those that go may be woken by another one.
	for name := range gone {
		if o := r.services[name]; o != nil {
			r.unwait(name, o.lost)
		}
	}
	for _, name := range slices.SortedFunc(stdmaps.Keys(gone), service.Name.Compare) {
		r.commit(name, &owned{}, nil)
	}
}

// next takes the first name from the queue.
func (r *round) next() (service.Name, bool) {
	if len(r.queue) == 0 {
		return service.Name{}, false
	}
	name := r.queue[0]
	r.queue = r.queue[1:]
	return name, true
}

// plan plans one service.
func (r *round) plan(name service.Name) {
	view := r.views[name]
	delete(r.views, name)
	b := newBuilder(r, name)
	b.build(want(view, r.in))
	delete(r.failures, name)
	if lacks := slices.Concat(b.conflicts, b.short); len(lacks) > 0 {
		r.failures[name] = errors.Join(lacks...)
	}
	if len(b.next.lost) > 0 {
		b.next.view = &view
	}
	b.commit()
}

// wake queues the services that wait for one of the frontends.
func (r *round) wake(free []maps.Frontend) {
	for _, f := range free {
		for name := range r.waiting[f] {
			r.requeue(name)
		}
	}
}

func (r *round) requeue(name service.Name) {
	if _, queued := r.views[name]; queued {
		return
	}
	r.views[name] = *r.services[name].view
	at, _ := slices.BinarySearchFunc(r.queue, name, service.Name.Compare)
	r.queue = slices.Insert(r.queue, at, name)
}
