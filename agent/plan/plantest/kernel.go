// Package plantest helps to test what makes and carries out plans: maps in
// memory that check the invariant of package plan at every write, random
// clusters, and a second, naive opinion on what the maps should hold. It
// deliberately shares no code with the planner.
package plantest

import (
	"fmt"
	"math"
	"time"

	"github.com/ebb-lb/ebb/agent/plan"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/maps/mapstest"
)

// Kernel is maps in memory that watch over the invariant of package plan. It
// is not safe for concurrent use.
type Kernel struct {
	// Fake holds the entries, refuses what the kernel refuses, and fails on
	// demand.
	Fake *mapstest.Fake
	// Now is the time. Tick, if not nil, is called before each write and may
	// advance it.
	Now  time.Time
	Tick func()
	// Flows is what Live answers.
	Flows map[maps.BackendID]int

	capacity    plan.Capacities
	content     content
	slots       map[uint32]maps.BackendID // only what was written
	slotSeen    map[uint32]time.Time      // last time a frontend led there
	backendSeen map[maps.BackendID]time.Time
	backendGone map[maps.BackendID]time.Time
	writes      int
	violations  []string
}

type content struct {
	frontends map[maps.Frontend]maps.Service
	ports     map[maps.ServicePortID]maps.ServicePort
	backends  map[maps.BackendID]maps.Backend
}

// NewKernel returns empty maps.
func NewKernel(c plan.Capacities) *Kernel {
	return &Kernel{
		Fake: mapstest.New(maps.Sizes{
			Frontends: c.Frontends, ServicePorts: c.ServicePorts, Backends: c.Backends, Slots: c.Slots,
			Flows: 1, HalfOpen: 1, Closed: 1, SourceRanges: c.SourceRanges,
		}),
		Now:      time.Unix(1_000_000, 0),
		Flows:    make(map[maps.BackendID]int),
		capacity: c,
		content: content{
			frontends: make(map[maps.Frontend]maps.Service),
			ports:     make(map[maps.ServicePortID]maps.ServicePort),
			backends:  make(map[maps.BackendID]maps.Backend),
		},
		slots:       make(map[uint32]maps.BackendID),
		slotSeen:    make(map[uint32]time.Time),
		backendSeen: make(map[maps.BackendID]time.Time),
		backendGone: make(map[maps.BackendID]time.Time),
	}
}

// Live returns the live flows of an index; the number is known for all.
func (k *Kernel) Live(id maps.BackendID) int { return k.Flows[id] }

// Capacities returns the room there is.
func (k *Kernel) Capacities() plan.Capacities { return k.capacity }

// Writes returns the number of writes so far.
func (k *Kernel) Writes() int { return k.writes }

// Violations returns every breach of the invariant so far.
func (k *Kernel) Violations() []string { return k.violations }

// State returns what the maps hold.
func (k *Kernel) State() plan.State {
	c, err := k.Fake.Contents()
	if err != nil {
		k.violate("read: %v", err)
	}
	return plan.State{
		Frontends: c.Frontends, ServicePorts: c.ServicePorts, Backends: c.Backends, Tables: c.Tables,
		SourceRanges: c.SourceRanges, Addresses: c.Addresses,
	}
}

// Run carries out the first n writes of p, all of them if n is negative. A
// refused write is a violation.
func (k *Kernel) Run(p plan.Plan, n int) {
	if n < 0 {
		n = math.MaxInt
	}
	do := func(write func() error) {
		if n--; n < 0 {
			return
		}
		if err := write(); err != nil {
			k.violate("refused: %v", err)
		}
	}
	for _, op := range p.DeleteFrontends {
		do(func() error { return k.Frontends().Delete(op.Frontend) })
	}
	for _, op := range p.DeleteAddresses {
		do(func() error { return k.Addresses().Delete(op.Addr) })
	}
	for _, op := range p.PutServicePorts {
		do(func() error { return k.ServicePorts().Put(op.ID, op.Port) })
	}
	for _, op := range p.PutBackends {
		do(func() error { return k.Backends().Put(op.ID, op.Backend) })
	}
	for _, op := range p.WriteTables {
		do(func() error { return k.Slots().Write(op.Table, op.Slots) })
	}
	for _, op := range p.PutRanges {
		do(func() error { return k.SourceRanges().Put(op.Range) })
	}
	for _, op := range p.PutFrontends {
		do(func() error { return k.Frontends().Put(op.Frontend, op.Value) })
	}
	for _, op := range p.RetireBackends {
		do(func() error { return k.Backends().Put(op.ID, op.Backend) })
	}
	for _, op := range p.DeleteRanges {
		do(func() error { return k.SourceRanges().Delete(op.Range) })
	}
	for _, op := range p.DeleteServicePorts {
		do(func() error { return k.ServicePorts().Delete(op.ID) })
	}
	for _, op := range p.PutAddresses {
		do(func() error { return k.Addresses().Put(op.Addr, op.Flags) })
	}
}

func (k *Kernel) violate(format string, args ...any) {
	k.violations = append(k.violations, fmt.Sprintf("write %d: ", k.writes)+fmt.Sprintf(format, args...))
}

// write carries out one write. Before it, what frontends lead to is still in
// use; guard looks at what is about to be overwritten.
func (k *Kernel) write(guard func(), do func() error, note func()) error {
	if k.Tick != nil {
		k.Tick()
	}
	k.walk(func(_ maps.Frontend, _ maps.Service, slot uint32) {
		k.slotSeen[slot] = k.Now
		k.backendSeen[k.slots[slot]] = k.Now
	})
	if err := do(); err != nil {
		return err
	}
	guard()
	note()
	k.writes++
	k.walk(k.check)
	return nil
}

// walk calls fn for every slot a frontend leads to, once per service port.
func (k *Kernel) walk(fn func(f maps.Frontend, v maps.Service, slot uint32)) {
	type use struct {
		port maps.ServicePortID
		at   maps.Table
	}
	seen := make(map[use]bool)
	for f, v := range k.content.frontends {
		for _, t := range []maps.Table{v.Cluster, v.Local} {
			if u := (use{v.ServicePort, t}); seen[u] {
				continue
			} else {
				seen[u] = true
			}
			for i := range t.Length {
				fn(f, v, t.Offset+i)
			}
		}
	}
}

// check is the first half of the invariant: where every slot leads.
func (k *Kernel) check(f maps.Frontend, v maps.Service, slot uint32) {
	id, written := k.slots[slot]
	b := k.content.backends[id]
	switch {
	case !written:
		k.violate("frontend %s leads to slot %d, which was never written", f, slot)
	case b.State != maps.Active && b.State != maps.Draining:
		k.violate("frontend %s leads by slot %d to backend %d, which is %s", f, slot, id, b.State)
	case b.ServicePort != v.ServicePort:
		k.violate("frontend %s of service port %d leads to backend %d of %d", f, v.ServicePort, id, b.ServicePort)
	}
}

// recently reports whether at is within the grace period.
func (k *Kernel) recently(at time.Time, ever bool) bool {
	return ever && k.Now.Sub(at) < plan.Grace
}

// guardSlots is the second half of the invariant for regions.
func (k *Kernel) guardSlots(t maps.Table) {
	for i := range t.Length {
		at, ever := k.slotSeen[t.Offset+i]
		if k.recently(at, ever) {
			k.violate("slot %d of table %s is overwritten %v after its last use", t.Offset+i, t, k.Now.Sub(at))
			return
		}
	}
}

// guardBackend is the second half of the invariant for indexes.
func (k *Kernel) guardBackend(id maps.BackendID, b maps.Backend) {
	old, had := k.content.backends[id]
	if b.Generation == 0 {
		k.violate("backend %d has generation 0", id)
	}
	if had && old.Generation == b.Generation {
		if old.Addr != b.Addr || old.ServicePort != b.ServicePort || old.State == maps.Gone && b.State != maps.Gone {
			k.violate("backend %d becomes another one in the same generation: %v, %v", id, old, b)
		}
		return
	}
	if !had {
		return
	}
	seen, ever := k.backendSeen[id]
	gone, known := k.backendGone[id]
	switch {
	case old.State != maps.Gone:
		k.violate("backend %d is reused while %s", id, old.State)
	case k.Flows[id] != 0:
		k.violate("backend %d is reused with %d live flows", id, k.Flows[id])
	case k.recently(seen, ever) || k.recently(gone, known):
		k.violate("backend %d is reused %v after it went", id, k.Now.Sub(gone))
	}
}
