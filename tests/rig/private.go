package rig

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
	"github.com/ebb-lb/ebb/maps"
)

// Maps of the programs' own, one in each object that routes or answers: in which
// the routes of new flows are shared, when the next answer may be given, and since
// when a next hop is not resolved.
const (
	unresolved = "unresolved"
	routeCache = "backend_routes"
	wayCache   = "backend_ways"
	answerDue  = "answer_due"
)

// routeCaches returns the maps that hold what programs know of routes.
func routeCaches(programs ...*ebpf.Program) ([]*ebpf.Map, error) {
	routes, err := ownMaps(routeCache, programs...)
	if err != nil {
		return routes, err
	}
	ways, err := ownMaps(wayCache, programs...)
	return append(routes, ways...), err
}

// ownMaps returns the maps of that name that programs have. The caller closes them.
func ownMaps(name string, programs ...*ebpf.Program) (found []*ebpf.Map, err error) {
	for _, p := range programs {
		info, err := p.Info()
		if err != nil {
			return found, fmt.Errorf("find %s: %w", name, err)
		}
		ids, _ := info.MapIDs()
		for _, id := range ids {
			m, err := ebpf.NewMapFromID(id)
			if err != nil {
				return found, fmt.Errorf("find %s: %w", name, err)
			}
			if mi, err := m.Info(); err == nil && mi.Name == name {
				found = append(found, m)
				continue
			}
			if err := m.Close(); err != nil {
				return found, err
			}
		}
	}
	if len(found) == 0 {
		return nil, errors.New("the programs have no map " + name)
	}
	return found, nil
}

// forgetRoutes makes the next packet of a new flow to any backend from first to before
// end ask the kernel for its way.
func (r *Rig) forgetRoutes(first, end maps.BackendID) error {
	for _, m := range r.routes {
		if err := zero(m, uint32(first), uint32(end)); err != nil {
			return fmt.Errorf("forget routes: %w", err)
		}
	}
	return nil
}

// ForgetRoutes makes the next flow to any backend ask the kernel for its way,
// although others have asked before.
func (r *Rig) ForgetRoutes(tb testing.TB) {
	tb.Helper()
	r.must(tb, r.forgetRoutes(0, r.most))
}

// forgetAnswers makes what has been answered so far not count against the limit.
func (r *Rig) forgetAnswers() error {
	for _, m := range r.answers {
		if err := zero(m, 0, 1); err != nil {
			return fmt.Errorf("forget answers: %w", err)
		}
	}
	return nil
}

// AgeUnresolved makes next hops that could not be resolved so many ticks older: all
// that is known of them, or only the first packet that was sent there.
func (r *Rig) AgeUnresolved(tb testing.TB, ticks uint32, all bool) {
	tb.Helper()
	for _, m := range r.dead {
		change(tb, r, m, func(_ bpf.LayoutNeighbourKey, v *[3]uint32) {
			v[0] -= ticks
			if all {
				v[1], v[2] = v[1]-ticks, v[2]-ticks
			}
		})
	}
}

// ForgetGuests forgets who connected without a Service.
func (r *Rig) ForgetGuests(tb testing.TB) {
	tb.Helper()
	m := r.Set.Replacements()[bpf.LayoutMapTheirs]
	keys := make([]uint32, m.MaxEntries())
	for i := range keys {
		keys[i] = uint32(i)
	}
	_, err := m.BatchUpdate(keys, make([]uint32, len(keys)), nil)
	r.must(tb, err)
}

// zero clears the first n entries of m, an array of each CPU.
func zero(m *ebpf.Map, first, end uint32) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	none := make([][]byte, cpus)
	for i := range none {
		none[i] = make([]byte, m.ValueSize())
	}
	for key := first; key < min(end, m.MaxEntries()); key++ {
		if err := m.Put(key, none); err != nil {
			return err
		}
	}
	return nil
}
