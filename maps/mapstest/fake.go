// Package mapstest is a set of maps in memory, for tests of what writes and
// reads maps. It knows what the kernel and package maps refuse, and fails when
// told to. It deliberately knows no byte layout, counters or programs: what
// those do is tested with real maps.
package mapstest

import (
	"net/netip"
	"sync"

	"github.com/ebb-lb/ebb/maps"
)

// What a Fake has room for, as the real maps; for NodeAddresses addresses
// besides one for each frontend.
const (
	MaxDevices    = 1024
	MaxStations   = 1024
	MaxCIDRs      = 1024
	NodeAddresses = 1024
)

// Fake has the accessors of maps.Set. It is safe for concurrent use. A write
// either happens as a whole or fails and changes nothing.
type Fake struct {
	mu           sync.Mutex
	frontends    *hash[maps.Frontend, maps.Service]
	servicePorts *hash[maps.ServicePortID, maps.ServicePort]
	devices      *hash[uint32, maps.Device]
	stations     *hash[maps.Station, uint32]
	sourceRanges *hash[maps.SourceRange, struct{}]
	serviceCIDRs *hash[netip.Prefix, struct{}]
	secured      *hash[netip.Prefix, struct{}]
	addresses    *hash[netip.Addr, maps.AddressFlags]
	backends     []maps.Backend
	slots        []maps.BackendID
	runtime      maps.Runtime
	flows        *lru
	halfOpen     *lru
	closed       *lru
	writes       uint64
	faults       faults
}

// New makes empty maps of the given sizes.
func New(sizes maps.Sizes) *Fake {
	return &Fake{
		frontends:    newHash[maps.Frontend, maps.Service](sizes.Frontends),
		servicePorts: newHash[maps.ServicePortID, maps.ServicePort](sizes.ServicePorts),
		devices:      newHash[uint32, maps.Device](MaxDevices),
		stations:     newHash[maps.Station, uint32](MaxStations),
		sourceRanges: newHash[maps.SourceRange, struct{}](sizes.SourceRanges),
		serviceCIDRs: newHash[netip.Prefix, struct{}](MaxCIDRs),
		secured:      newHash[netip.Prefix, struct{}](MaxCIDRs),
		addresses:    newHash[netip.Addr, maps.AddressFlags](sizes.Frontends + NodeAddresses),
		backends:     make([]maps.Backend, sizes.Backends),
		slots:        make([]maps.BackendID, sizes.Slots),
		flows:        newLRU(sizes.Flows),
		halfOpen:     newLRU(sizes.HalfOpen),
		closed:       newLRU(sizes.Closed),
	}
}

// Writes counts as maps.Set.Writes does.
func (f *Fake) Writes() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writes
}

// write runs a change under the lock unless a fault is due. change reports
// whether it changed anything.
func (f *Fake) write(change func() (bool, error)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.faults.next(); err != nil {
		return err
	}
	changed, err := change()
	if changed {
		f.writes++
	}
	return err
}

// Frontends stands for maps.Set.Frontends.
func (f *Fake) Frontends() Frontends { return Frontends{f} }

// ServicePorts stands for maps.Set.ServicePorts.
func (f *Fake) ServicePorts() ServicePorts { return ServicePorts{f} }

// Backends stands for maps.Set.Backends.
func (f *Fake) Backends() Backends { return Backends{f} }

// Slots stands for maps.Set.Slots.
func (f *Fake) Slots() Slots { return Slots{f} }

// Flows stands for maps.Set.Flows.
func (f *Fake) Flows() Flows { return Flows{f: f, l: f.flows, name: "flow"} }

// HalfOpen stands for maps.Set.HalfOpen.
func (f *Fake) HalfOpen() Flows {
	return Flows{f: f, l: f.halfOpen, name: "half-open flow", half: true}
}

// Runtime stands for maps.Set.Runtime.
func (f *Fake) Runtime() RuntimeValues { return RuntimeValues{f} }

// Devices stands for maps.Set.Devices.
func (f *Fake) Devices() Devices { return Devices{f} }

// Stations stands for maps.Set.Stations.
func (f *Fake) Stations() Stations { return Stations{f} }

// SourceRanges stands for maps.Set.SourceRanges.
func (f *Fake) SourceRanges() SourceRanges { return SourceRanges{f} }

// ServiceCIDRs stands for maps.Set.ServiceCIDRs.
func (f *Fake) ServiceCIDRs() CIDRs { return CIDRs{f, f.serviceCIDRs, "service"} }

// Secured stands for maps.Set.Secured.
func (f *Fake) Secured() CIDRs { return CIDRs{f, f.secured, "secured"} }

// Addresses stands for maps.Set.Addresses.
func (f *Fake) Addresses(own maps.AddressFlags) Addresses { return Addresses{f, own} }

// EachAffinity stands for maps.Set.EachAffinity. Only the datapath makes
// clients keep their backends: there are none.
func (f *Fake) EachAffinity(func(maps.AffinityKey, maps.Affinity) bool) error { return nil }

// EachSocket stands for maps.Set.EachSocket, likewise.
func (f *Fake) EachSocket(func(maps.SocketKey, maps.SocketPeer) bool) error { return nil }

// EachFlow stands for maps.Set.EachFlow.
func (f *Fake) EachFlow(fn func(maps.FlowKey, maps.Flow) bool) error { return f.Flows().Each(fn) }

// Closed stands for maps.Set.Closed.
func (f *Fake) Closed() Flows { return Flows{f: f, l: f.closed, name: "closed flow"} }

// EachClosed stands for maps.Set.EachClosed.
func (f *Fake) EachClosed(fn func(maps.FlowKey, maps.Flow) bool) error { return f.Closed().Each(fn) }

// EachHalfOpen stands for maps.Set.EachHalfOpen.
func (f *Fake) EachHalfOpen(fn func(maps.FlowKey, maps.Flow) bool) error {
	return f.HalfOpen().Each(fn)
}

// Contents stands for maps.Set.Contents.
func (f *Fake) Contents() (maps.Contents, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := maps.Contents{
		Frontends:    f.frontends.all(),
		ServicePorts: f.servicePorts.all(),
		Backends:     f.usedBackends(),
		Runtime:      f.runtime,
		Devices:      f.devices.all(),
		Stations:     f.stations.all(),
		SourceRanges: f.sourceRanges.all(),
		ServiceCIDRs: f.serviceCIDRs.all(),
		Secured:      f.secured.all(),
		Addresses:    f.addresses.all(),
	}
	var err error
	if c.Tables, err = maps.ReadTables(c.Frontends, f.readTable); err != nil {
		return maps.Contents{}, err
	}
	return c, nil
}

func (f *Fake) usedBackends() map[maps.BackendID]maps.Backend {
	out := make(map[maps.BackendID]maps.Backend)
	for id, b := range f.backends {
		if b.State != maps.Free {
			out[maps.BackendID(id)] = b
		}
	}
	return out
}

func (f *Fake) region(t maps.Table) []maps.BackendID {
	return f.slots[t.Offset : uint64(t.Offset)+uint64(t.Length)]
}

func (f *Fake) readTable(t maps.Table) ([]maps.BackendID, error) {
	if err := t.Check(int(t.Length), uint32(len(f.slots))); err != nil {
		return nil, wrap(err, "read table %s", t)
	}
	return append([]maps.BackendID{}, f.region(t)...), nil
}
