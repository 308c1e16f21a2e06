package rig

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/maps"
)

// Backend makes the value for an active backend on this node or another.
func Backend(addr string, local bool) maps.Backend {
	return maps.Backend{
		Addr: netip.MustParseAddrPort(addr), State: maps.Active, Local: local, Generation: 1,
		InCluster: true, InLocal: true,
	}
}

// AddService makes frontend lead to backends, one slot each, and returns the
// service port's id and the id of the first backend; the others follow it.
func (r *Rig) AddService(tb testing.TB, frontend maps.Frontend, backends ...maps.Backend) (maps.ServicePortID, maps.BackendID) {
	tb.Helper()
	r.next.service++
	id, first := r.next.service, r.next.backend
	slots := make([]maps.BackendID, len(backends))
	for i, b := range backends {
		b.ServicePort = id
		slots[i] = r.next.backend
		r.must(tb, r.Set.Backends().Put(slots[i], b))
		r.next.backend++
		r.most = max(r.most, r.next.backend)
	}
	// Backends of an index have a generation each, which these may not.
	r.must(tb, r.forgetRoutes(first, r.next.backend))
	table := maps.Table{}
	if len(slots) > 0 {
		table = maps.Table{Offset: r.next.slot, Length: uint32(len(slots))}
		r.must(tb, r.Set.Slots().Write(table, slots))
		r.next.slot += table.Length
	}
	name := maps.ServicePort{Namespace: "test", Service: fmt.Sprintf("s%d", id), Proto: frontend.Proto}
	r.must(tb, r.Set.ServicePorts().Put(id, name))
	r.must(tb, r.Set.Frontends().Put(frontend, maps.Service{
		ServicePort: id, Cluster: table, Local: table, HasEndpoints: true,
	}))
	return id, first
}

func (r *Rig) must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
