package maps

import (
	"errors"
	"fmt"
	stdmaps "maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
)

// Set is all maps of one datapath. It is safe for concurrent use, except that
// overlapping regions of slots must not be written and read at the same time.
// Whoever creates or opens a Set closes it; accessors taken from it are valid
// until then.
type Set struct {
	maps   map[string]*ebpf.Map
	slots  *ebpf.Memory // nil: read-only
	writes map[string]*atomic.Uint64
	// addresses is held while an entry of the map addresses is changed.
	addresses sync.Mutex
}

// mapNames are the maps of a Set in the order they are created and pinned.
func mapNames() []string {
	return []string{
		bpf.LayoutMapFrontends,
		bpf.LayoutMapServicePorts,
		bpf.LayoutMapBackends,
		bpf.LayoutMapSlots,
		bpf.LayoutMapFlows,
		bpf.LayoutMapHalfOpen,
		bpf.LayoutMapClosed,
		bpf.LayoutMapGiven,
		bpf.LayoutMapBackendFilter,
		bpf.LayoutMapOwned,
		bpf.LayoutMapTheirs,
		bpf.LayoutMapPressure,
		bpf.LayoutMapAffinity,
		bpf.LayoutMapSourceRanges,
		bpf.LayoutMapAddresses,
		bpf.LayoutMapServiceCidrs,
		bpf.LayoutMapSecured,
		bpf.LayoutMapFragments,
		bpf.LayoutMapSockets,
		bpf.LayoutMapHeld,
		bpf.LayoutMapCounters,
		bpf.LayoutMapBackendStats,
		bpf.LayoutMapRuntime,
		bpf.LayoutMapDevices,
		bpf.LayoutMapRoutes,
		bpf.LayoutMapNeighbours,
		bpf.LayoutMapStations,
	}
}

// Create makes unpinned maps of the given sizes. They live as long as the Set,
// a pin or a program holds them.
func Create(sizes Sizes) (*Set, error) {
	specs, err := sizes.specs()
	if err != nil {
		return nil, fmt.Errorf("create maps: %w", err)
	}
	return assemble("create", false, func(name string) (*ebpf.Map, error) {
		return ebpf.NewMap(specs[name])
	})
}

// Open opens the maps pinned in dir, a file per map, and checks that they have
// this version's layout. A missing pin is an error that wraps fs.ErrNotExist.
// With readOnly the kernel refuses every write through the Set.
func Open(dir string, readOnly bool) (*Set, error) {
	specs, err := layout()
	if err != nil {
		return nil, fmt.Errorf("open maps in %s: %w", dir, err)
	}
	s, err := assemble("open", readOnly, func(name string) (*ebpf.Map, error) {
		return openMap(filepath.Join(dir, name), readOnly, specs[name])
	})
	if err != nil {
		return nil, fmt.Errorf("open maps in %s: %w", dir, err)
	}
	return s, nil
}

// openMap opens one pin and checks it against spec.
func openMap(path string, readOnly bool, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: readOnly})
	if err != nil {
		return nil, err
	}
	if err := fits(m, spec); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// assemble gets each map by name and, unless it is read-only, maps the slots
// into memory. On error everything that was got is closed.
func assemble(action string, readOnly bool, get func(name string) (*ebpf.Map, error)) (*Set, error) {
	s := &Set{maps: make(map[string]*ebpf.Map), writes: make(map[string]*atomic.Uint64)}
	for _, name := range mapNames() {
		s.writes[name] = new(atomic.Uint64)
		m, err := get(name)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s map %s: %w", action, name, err), s.Close())
		}
		s.maps[name] = m
	}
	if err := s.finish(readOnly); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// finish checks what concerns more than one map, and maps the slots. The
// kernel maps an array shared or not at all, which takes write permission.
func (s *Set) finish(readOnly bool) error {
	stats, backends := s.maps[bpf.LayoutMapBackendStats], s.maps[bpf.LayoutMapBackends]
	if stats.MaxEntries() != backends.MaxEntries() {
		return fmt.Errorf("map %s has %d entries; want %d, as map %s has", bpf.LayoutMapBackendStats,
			stats.MaxEntries(), backends.MaxEntries(), bpf.LayoutMapBackends)
	}
	if readOnly {
		return nil
	}
	mem, err := s.maps[bpf.LayoutMapSlots].Memory()
	if err != nil {
		return fmt.Errorf("map %s: %w", bpf.LayoutMapSlots, err)
	}
	s.slots = mem
	return nil
}

// Pin pins every map in dir, which is made if it is missing and must be on a
// bpffs. A map that was pinned elsewhere moves. On error nothing stays pinned
// in dir.
func (s *Set) Pin(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("pin maps: %w", err)
	}
	for i, name := range mapNames() {
		if err := s.maps[name].Pin(filepath.Join(dir, name)); err != nil {
			err = fmt.Errorf("pin map %s in %s: %w", name, dir, err)
			return errors.Join(err, s.unpin(mapNames()[:i]))
		}
	}
	return nil
}

// unpin removes the pins of the named maps.
func (s *Set) unpin(names []string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, s.maps[name].Unpin())
	}
	return errors.Join(errs...)
}

// Close closes the Set's descriptors. What is pinned or used by a program
// stays in the kernel.
func (s *Set) Close() error {
	var errs []error
	for _, m := range s.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// Replacements is the Set as the loader binds programs to it, by map name. The
// maps stay the Set's: they must not be closed or written through.
func (s *Set) Replacements() map[string]*ebpf.Map {
	return stdmaps.Clone(s.maps)
}

// Writes is the number of changes the kernel has taken from this Set since it
// was created or opened: puts and deletes of frontends, service ports,
// backends, source, pod and service ranges, addresses, devices, stations and runtime values, and
// regions of slots. Refused writes, deletes of absent entries and all access to flows,
// affinity, sockets, routes and neighbours do not count.
func (s *Set) Writes() uint64 {
	var all uint64
	for _, n := range s.writes {
		all += n.Load()
	}
	return all
}

// WritesByMap is Writes, for each map by its name.
func (s *Set) WritesByMap() map[string]uint64 {
	all := make(map[string]uint64, len(s.writes))
	for name, n := range s.writes {
		all[name] = n.Load()
	}
	return all
}

// Frontends is access to what clients dial.
func (s *Set) Frontends() Frontends { return Frontends{s.entries(bpf.LayoutMapFrontends)} }

// ServicePorts is access to the names behind service port ids.
func (s *Set) ServicePorts() ServicePorts {
	return ServicePorts{s.entries(bpf.LayoutMapServicePorts)}
}

// Backends is access to the backends.
func (s *Set) Backends() Backends { return Backends{s.entries(bpf.LayoutMapBackends)} }

// Slots is access to the lookup tables.
func (s *Set) Slots() Slots { return Slots{s.entries(bpf.LayoutMapSlots), s.slots} }

// Flows is access to established flows.
func (s *Set) Flows() Flows { return Flows{m: s.maps[bpf.LayoutMapFlows], name: "flow"} }

// HalfOpen is access to flows that are not proved: handshakes under way, and
// datagrams that were not answered, or whose client has said nothing since.
func (s *Set) HalfOpen() Flows {
	return Flows{m: s.maps[bpf.LayoutMapHalfOpen], name: "half-open flow", half: true}
}

// Closed is access to connections that were closed or reset.
func (s *Set) Closed() Flows { return Flows{m: s.maps[bpf.LayoutMapClosed], name: "closed flow"} }

// Affinity is access to the backends that clients keep.
func (s *Set) Affinity() Affinities { return Affinities{s.maps[bpf.LayoutMapAffinity]} }

// Sockets is access to what sockets of this node dialled.
func (s *Set) Sockets() Sockets { return Sockets{s.maps[bpf.LayoutMapSockets]} }

// SourceRanges is access to who may use restricted frontends.
func (s *Set) SourceRanges() SourceRanges {
	return SourceRanges{s.entries(bpf.LayoutMapSourceRanges)}
}

// ServiceCIDRs is access to which addresses are those of Services.
func (s *Set) ServiceCIDRs() CIDRs {
	return CIDRs{s.entries(bpf.LayoutMapServiceCidrs), "service"}
}

// Secured is access to which addresses packets may have to be encrypted to.
func (s *Set) Secured() CIDRs { return CIDRs{s.entries(bpf.LayoutMapSecured), "secured"} }

// Addresses is access to those flags of addresses, see ServiceAddress and
// NodeAddress.
func (s *Set) Addresses(own AddressFlags) Addresses {
	return Addresses{s.entries(bpf.LayoutMapAddresses), &s.addresses, own}
}

// Counters is access to the verdict counters.
func (s *Set) Counters() Counters { return Counters{s.maps[bpf.LayoutMapCounters]} }

// Stats is access to what each backend has done.
func (s *Set) Stats() Stats { return Stats{s.maps[bpf.LayoutMapBackendStats]} }

// Runtime is access to the values that change while programs run.
func (s *Set) Runtime() RuntimeValues { return RuntimeValues{s.entries(bpf.LayoutMapRuntime)} }

// Devices is access to how XDP may leave by each device.
func (s *Set) Devices() Devices { return Devices{s.entries(bpf.LayoutMapDevices)} }

// Stations is access to whose frames are the node's.
func (s *Set) Stations() Stations { return Stations{s.entries(bpf.LayoutMapStations)} }

// Routes is access to what programs are told of the kernel's routes.
func (s *Set) Routes() Routes { return Routes{s.maps[bpf.LayoutMapRoutes]} }

// Neighbours is access to the next hops that are in use.
func (s *Set) Neighbours() Neighbours { return Neighbours{s.maps[bpf.LayoutMapNeighbours]} }

func (s *Set) entries(name string) entries { return entries{s.maps[name], s.writes[name]} }
