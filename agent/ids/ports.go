package ids

import (
	"fmt"
	"math"

	"github.com/ebb-lb/ebb/maps"
)

// Ports hands out service port ids. An id is never 0, stays with its name
// until released, and is the lowest number that nothing refers to: neither a
// name nor a backend entry, also one that is gone, so that a tool never shows
// a backend under a service it never belonged to.
type Ports struct {
	capacity uint32
	byName   map[maps.ServicePort]maps.ServicePortID
	names    map[maps.ServicePortID]maps.ServicePort
	held     map[maps.ServicePortID]int
	numbers  lowest
}

// NewPorts returns Ports that go on from the content of the service_ports map,
// which has room for capacity entries. Where a name has several ids the lowest
// is its id.
func NewPorts(capacity uint32, have map[maps.ServicePortID]maps.ServicePort) *Ports {
	p := &Ports{
		capacity: capacity,
		byName:   make(map[maps.ServicePort]maps.ServicePortID, len(have)),
		names:    make(map[maps.ServicePortID]maps.ServicePort, len(have)),
		held:     make(map[maps.ServicePortID]int, len(have)),
		numbers:  newLowest(1, math.MaxUint32),
	}
	for id, name := range have {
		p.names[id] = name
		p.Hold(id)
		if other, ok := p.byName[name]; !ok || id < other {
			p.byName[name] = id
		}
	}
	return p
}

// Len returns the number of names that have an id.
func (p *Ports) Len() int { return len(p.names) }

// Lookup returns the id of name, if it has one.
func (p *Ports) Lookup(name maps.ServicePort) (maps.ServicePortID, bool) {
	id, ok := p.byName[name]
	return id, ok
}

// Take gives name, which has no id, the lowest free one. The error wraps
// ErrFull.
func (p *Ports) Take(name maps.ServicePort) (maps.ServicePortID, error) {
	if uint64(len(p.names)) >= uint64(p.capacity) {
		return 0, fmt.Errorf("take id for service port %s: %w: all %d entries are in use; raise --max-frontends",
			name, ErrFull, p.capacity)
	}
	n, ok := p.numbers.take()
	if !ok {
		return 0, fmt.Errorf("take id for service port %s: %w: every number is in use", name, ErrFull)
	}
	id := maps.ServicePortID(n)
	p.byName[name] = id
	p.names[id] = name
	p.held[id]++
	return id, nil
}

// Release takes the name from id. The number is free once nobody holds it.
func (p *Ports) Release(id maps.ServicePortID) {
	name, ok := p.names[id]
	if !ok {
		return
	}
	delete(p.names, id)
	if p.byName[name] == id {
		delete(p.byName, name)
	}
	p.Unhold(id)
}

// Hold keeps the number id from being handed out until as many Unholds. Ids
// that Take did not hand out may be held only before the first Take.
func (p *Ports) Hold(id maps.ServicePortID) {
	if p.held[id]++; p.held[id] == 1 {
		p.numbers.reserve(uint32(id))
	}
}

// Unhold ends a Hold.
func (p *Ports) Unhold(id maps.ServicePortID) {
	if p.held[id]--; p.held[id] > 0 {
		return
	}
	delete(p.held, id)
	if id != 0 {
		p.numbers.give(uint32(id))
	}
}
