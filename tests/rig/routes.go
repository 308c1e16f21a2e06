package rig

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// routeCache is the map in which the programs share routes of new flows; each
// hook that routes has its own.
const routeCache = "backend_routes"

// routeCaches returns the caches of all programs. The caller closes them.
func routeCaches(programs ...*ebpf.Program) (caches []*ebpf.Map, err error) {
	for _, p := range programs {
		info, err := p.Info()
		if err != nil {
			return caches, fmt.Errorf("find %s: %w", routeCache, err)
		}
		ids, _ := info.MapIDs()
		for _, id := range ids {
			m, err := ebpf.NewMapFromID(id)
			if err != nil {
				return caches, fmt.Errorf("find %s: %w", routeCache, err)
			}
			if mi, err := m.Info(); err == nil && mi.Name == routeCache {
				caches = append(caches, m)
				continue
			}
			if err := m.Close(); err != nil {
				return caches, err
			}
		}
	}
	if len(caches) == 0 {
		return nil, errors.New("the programs have no map " + routeCache)
	}
	return caches, nil
}

// forgetRoutes makes the next packet of a new flow to any of the first n
// backends ask the kernel for its way.
func (r *Rig) forgetRoutes(n int) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	for _, m := range r.routes {
		none := make([][]byte, cpus)
		for i := range none {
			none[i] = make([]byte, m.ValueSize())
		}
		for key := range min(uint32(n), m.MaxEntries()) {
			if err := m.Put(key, none); err != nil {
				return fmt.Errorf("forget routes: %w", err)
			}
		}
	}
	return nil
}
