package rig

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// Maps of the programs' own, one in each object that routes or answers: in which
// the routes of new flows are shared, and when the next answer may be given.
const (
	routeCache = "backend_routes"
	answerDue  = "answer_due"
)

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

// forgetRoutes makes the next packet of a new flow to any of the first n
// backends ask the kernel for its way.
func (r *Rig) forgetRoutes(n int) error {
	for _, m := range r.routes {
		if err := zero(m, n); err != nil {
			return fmt.Errorf("forget routes: %w", err)
		}
	}
	return nil
}

// forgetAnswers makes what has been answered so far not count against the limit.
func (r *Rig) forgetAnswers() error {
	for _, m := range r.answers {
		if err := zero(m, 1); err != nil {
			return fmt.Errorf("forget answers: %w", err)
		}
	}
	return nil
}

// zero clears the first n entries of m, an array of each CPU.
func zero(m *ebpf.Map, n int) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	none := make([][]byte, cpus)
	for i := range none {
		none[i] = make([]byte, m.ValueSize())
	}
	for key := range min(uint32(n), m.MaxEntries()) {
		if err := m.Put(key, none); err != nil {
			return err
		}
	}
	return nil
}
