// Package apply carries out plans. It knows in which order writes are done and
// what must be left out when one fails; it deliberately knows neither why a
// write is wanted nor when to try again.
package apply

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/ebb-lb/ebb/agent/plan"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// Targets are the maps a plan is written to, and read from.
type Targets struct {
	Frontends interface {
		Put(maps.Frontend, maps.Service) error
		Delete(maps.Frontend) error
		All() (map[maps.Frontend]maps.Service, error)
	}
	ServicePorts interface {
		Put(maps.ServicePortID, maps.ServicePort) error
		Delete(maps.ServicePortID) error
		All() (map[maps.ServicePortID]maps.ServicePort, error)
	}
	Backends interface {
		Put(maps.BackendID, maps.Backend) error
		All() (map[maps.BackendID]maps.Backend, error)
	}
	Slots interface {
		Write(maps.Table, []maps.BackendID) error
		Read(maps.Table) ([]maps.BackendID, error)
		Capacity() uint32
	}
	SourceRanges interface {
		Put(maps.SourceRange) error
		Delete(maps.SourceRange) error
		All() (map[maps.SourceRange]struct{}, error)
	}
	// Addresses has the flags of services, maps.ServiceAddress.
	Addresses interface {
		Put(netip.Addr, maps.AddressFlags) error
		Delete(netip.Addr) error
		All() (map[netip.Addr]maps.AddressFlags, error)
	}
}

// Result is what became of a plan.
type Result struct {
	// Writes are the writes that were done.
	Writes int
	// Failed are the services with a write that was refused. What they had
	// before still stands, or part of it has been replaced; either way every
	// frontend leads to backends that are there.
	Failed map[service.Name]error
}

// Apply carries out p in its order. A refused write ends the work for its
// service; the other services go on. Where a frontend could not be handed over,
// the service it still belongs to keeps its backends too.
func Apply(p plan.Plan, t Targets) Result {
	r := run{Result: Result{Failed: make(map[service.Name]error)}}
	for _, op := range p.DeleteFrontends {
		r.do(op.Service, func() error { return t.Frontends.Delete(op.Frontend) })
	}
	for _, op := range p.DeleteAddresses {
		r.do(op.Service, func() error { return t.Addresses.Delete(op.Addr) })
	}
	for _, op := range p.PutServicePorts {
		r.do(op.Service, func() error { return t.ServicePorts.Put(op.ID, op.Port) })
	}
	for _, op := range p.PutBackends {
		r.do(op.Service, func() error { return t.Backends.Put(op.ID, op.Backend) })
	}
	for _, op := range p.WriteTables {
		r.do(op.Service, func() error { return t.Slots.Write(op.Table, op.Slots) })
	}
	for _, op := range p.PutRanges {
		r.do(op.Service, func() error { return t.SourceRanges.Put(op.Range) })
	}
	r.flip(p, t)
	for _, op := range p.RetireBackends {
		r.do(op.Service, func() error { return t.Backends.Put(op.ID, op.Backend) })
	}
	for _, op := range p.DeleteRanges {
		r.do(op.Service, func() error { return t.SourceRanges.Delete(op.Range) })
	}
	for _, op := range p.DeleteServicePorts {
		r.do(op.Service, func() error { return t.ServicePorts.Delete(op.ID) })
	}
	for _, op := range p.PutAddresses {
		r.do(op.Service, func() error { return t.Addresses.Put(op.Addr, op.Flags) })
	}
	return r.Result
}

// errHandover is why a service keeps what it should have given up.
var errHandover = errors.New("a frontend could not be handed over")

type run struct{ Result }

// do carries out one write unless an earlier one of its service failed.
func (r *run) do(name service.Name, write func() error) {
	if r.Failed[name] != nil {
		return
	}
	if err := write(); err != nil {
		r.Failed[name] = fmt.Errorf("apply %s: %w", name, err)
		return
	}
	r.Writes++
}

func (r *run) flip(p plan.Plan, t Targets) {
	for _, op := range p.PutFrontends {
		r.do(op.Service, func() error { return t.Frontends.Put(op.Frontend, op.Value) })
		if err := r.Failed[op.Service]; err != nil && op.From != (service.Name{}) && r.Failed[op.From] == nil {
			r.Failed[op.From] = fmt.Errorf("apply %s: %w: %s: %w", op.From, errHandover, op.Frontend, err)
		}
	}
}

// Read returns what the maps hold. A table that is not within the map of slots
// is left empty, so that a plan replaces it.
func Read(t Targets) (plan.State, error) {
	var s plan.State
	var err error
	if s.Frontends, err = t.Frontends.All(); err != nil {
		return s, fmt.Errorf("read maps: %w", err)
	}
	if s.ServicePorts, err = t.ServicePorts.All(); err != nil {
		return s, fmt.Errorf("read maps: %w", err)
	}
	if s.Backends, err = t.Backends.All(); err != nil {
		return s, fmt.Errorf("read maps: %w", err)
	}
	if s.SourceRanges, err = t.SourceRanges.All(); err != nil {
		return s, fmt.Errorf("read maps: %w", err)
	}
	if s.Addresses, err = t.Addresses.All(); err != nil {
		return s, fmt.Errorf("read maps: %w", err)
	}
	if s.Tables, err = maps.ReadTables(s.Frontends, t.readTable); err != nil {
		return s, fmt.Errorf("read maps: %w", err)
	}
	return s, nil
}

func (t Targets) readTable(at maps.Table) ([]maps.BackendID, error) {
	if at.Check(int(at.Length), t.Slots.Capacity()) != nil {
		return nil, nil
	}
	return t.Slots.Read(at)
}
