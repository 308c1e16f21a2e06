package mapstest

import (
	"container/list"
	"errors"

	"github.com/ebb-lb/ebb/maps"
)

// lru holds flows; a full one forgets the flow least recently put or looked
// up to take another. The kernel's forgets earlier, and less exactly.
type lru struct {
	m     map[maps.FlowKey]*list.Element
	order *list.List // of lruEntry, next to be forgotten first
	max   uint32
}

type lruEntry struct {
	key  maps.FlowKey
	flow maps.Flow
}

func newLRU(size uint32) *lru {
	return &lru{m: make(map[maps.FlowKey]*list.Element), order: list.New(), max: size}
}

func (l *lru) put(k maps.FlowKey, f maps.Flow) {
	l.del(k)
	if l.order.Len() > 0 && l.order.Len() >= int(l.max) {
		l.del(l.order.Front().Value.(lruEntry).key)
	}
	l.m[k] = l.order.PushBack(lruEntry{k, f})
}

func (l *lru) get(k maps.FlowKey) (maps.Flow, bool) {
	e, ok := l.m[k]
	if !ok {
		return maps.Flow{}, false
	}
	l.order.MoveToBack(e)
	return e.Value.(lruEntry).flow, true
}

func (l *lru) del(k maps.FlowKey) {
	if e, ok := l.m[k]; ok {
		l.order.Remove(e)
		delete(l.m, k)
	}
}

// all is a copy of the entries in no order.
func (l *lru) all() []lruEntry {
	out := make([]lruEntry, 0, len(l.m))
	for _, e := range l.m {
		out = append(out, e.Value.(lruEntry))
	}
	return out
}

// Flows stands for maps.Flows.
type Flows struct {
	f    *Fake
	l    *lru
	name string
	half bool
}

// Each behaves as maps.Flows.Each: fn may delete flows.
func (a Flows) Each(fn func(maps.FlowKey, maps.Flow) bool) error {
	a.f.mu.Lock()
	entries := a.l.all()
	a.f.mu.Unlock()
	for _, e := range entries {
		if !fn(e.key, e.flow) {
			break
		}
	}
	return nil
}

// Lookup behaves as maps.Flows.Lookup.
func (a Flows) Lookup(k maps.FlowKey) (maps.Flow, bool, error) {
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	flow, ok := a.l.get(k)
	return flow, ok, nil
}

// Delete behaves as maps.Flows.Delete.
func (a Flows) Delete(k maps.FlowKey) error {
	return wrap(a.f.write(func() (bool, error) {
		a.l.del(k)
		return false, nil
	}), "delete %s %s", a.name, k)
}

// Put behaves as maps.Flows.Put. No fault strikes it.
func (a Flows) Put(k maps.FlowKey, flow maps.Flow) error {
	if err := errors.Join(k.Validate(), flow.Validate()); err != nil {
		return wrap(err, "put %s %s", a.name, k)
	}
	if !a.half {
		flow.Since = 0
	}
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	a.l.put(k, flow)
	return nil
}
