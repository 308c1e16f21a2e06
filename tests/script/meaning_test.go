package script

import (
	"cmp"
	"errors"
	stdmaps "maps"
	"slices"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/maps/mapstest"
)

// meaning is the dump of c without what depends on the way it came about:
// numbers are given anew, in the order of names and addresses, and backends that
// are gone are left out.
func meaning(c maps.Contents) (string, error) {
	r := renumbered{
		have:     c,
		fake:     mapstest.New(maps.Sizes{Frontends: 64, ServicePorts: 64, Backends: 64, Slots: 1 << 14, Flows: 1, HalfOpen: 1, Closed: 1}),
		ports:    map[maps.ServicePortID]maps.ServicePortID{},
		backends: map[maps.BackendID]maps.BackendID{},
		tables:   map[maps.Table]maps.Table{},
	}
	err := errors.Join(r.putPorts(), r.putBackends(), r.putFrontends(), r.fake.Runtime().Put(c.Runtime))
	if err != nil {
		return "", err
	}
	return dumped(r.fake)
}

type renumbered struct {
	have     maps.Contents
	fake     *mapstest.Fake
	ports    map[maps.ServicePortID]maps.ServicePortID
	backends map[maps.BackendID]maps.BackendID
	tables   map[maps.Table]maps.Table
	next     uint32 // first slot not used yet
}

func (r *renumbered) putPorts() error {
	var errs []error
	byName := slices.SortedFunc(stdmaps.Keys(r.have.ServicePorts), func(a, b maps.ServicePortID) int {
		return cmp.Compare(r.have.ServicePorts[a].String(), r.have.ServicePorts[b].String())
	})
	for i, id := range byName {
		r.ports[id] = maps.ServicePortID(i + 1)
		errs = append(errs, r.fake.ServicePorts().Put(r.ports[id], r.have.ServicePorts[id]))
	}
	return errors.Join(errs...)
}

func (r *renumbered) putBackends() error {
	var errs []error
	byAddr := slices.SortedFunc(stdmaps.Keys(r.have.Backends), func(a, b maps.BackendID) int {
		va, vb := r.have.Backends[a], r.have.Backends[b]
		return cmp.Or(cmp.Compare(r.ports[va.ServicePort], r.ports[vb.ServicePort]), va.Addr.Compare(vb.Addr))
	})
	for _, id := range byAddr {
		b := r.have.Backends[id]
		if b.State == maps.Gone {
			continue
		}
		r.backends[id] = maps.BackendID(len(r.backends))
		b.ServicePort, b.Generation = r.ports[b.ServicePort], 1
		errs = append(errs, r.fake.Backends().Put(r.backends[id], b))
	}
	return errors.Join(errs...)
}

func (r *renumbered) putFrontends() error {
	var errs []error
	for _, f := range slices.SortedFunc(stdmaps.Keys(r.have.Frontends), maps.Frontend.Compare) {
		v := r.have.Frontends[f]
		v.ServicePort = r.ports[v.ServicePort]
		for _, t := range []*maps.Table{&v.Cluster, &v.Local} {
			moved, err := r.table(*t)
			errs = append(errs, err)
			*t = moved
		}
		errs = append(errs, r.fake.Frontends().Put(f, v))
	}
	return errors.Join(errs...)
}

// table moves a table, once, to where the last one ended.
func (r *renumbered) table(t maps.Table) (maps.Table, error) {
	if moved, ok := r.tables[t]; ok || t.Length == 0 {
		return moved, nil
	}
	moved := maps.Table{Offset: r.next, Length: t.Length}
	r.next += t.Length
	r.tables[t] = moved
	slots := slices.Clone(r.have.Tables[t])
	for i, id := range slots {
		slots[i] = r.backends[id]
	}
	return moved, r.fake.Slots().Write(moved, slots)
}
