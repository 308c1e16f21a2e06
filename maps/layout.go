package maps

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
)

// LayoutVersion names the layout of everything in the maps: keys, values,
// kinds. Maps of another version are never opened, they are pinned elsewhere.
const LayoutVersion = 4

// Sizes are the capacities of the maps an operator may choose, in entries. The
// statistics per backend have the size of Backends.
type Sizes struct {
	Frontends    uint32
	ServicePorts uint32
	Backends     uint32
	Slots        uint32
	// Flows takes two entries per connection; when it is full new connections
	// are refused.
	Flows uint32
	// HalfOpen and Closed take up to two entries per connection. When they are
	// full the entry least recently used makes room. The kernel divides them
	// among the CPUs: they get at least [perCPU] entries for each.
	HalfOpen, Closed uint32
	// Affinity takes an entry per client and service port, and evicts likewise.
	Affinity uint32
	// SourceRanges takes an entry per range of each restricted service port.
	SourceRanges uint32
}

// DefaultSizes are the sizes the datapath is compiled with. They are zero if
// the embedded layout does not parse, which Create then reports.
func DefaultSizes() Sizes {
	specs, err := layout()
	if err != nil {
		return Sizes{}
	}
	return sizesFrom(func(name string) uint32 { return specs[name].MaxEntries })
}

// Sizes are the capacities the maps of s really have.
func (s *Set) Sizes() Sizes {
	return sizesFrom(func(name string) uint32 { return s.maps[name].MaxEntries() })
}

func sizesFrom(entries func(name string) uint32) Sizes {
	return Sizes{
		Frontends:    entries(bpf.LayoutMapFrontends),
		ServicePorts: entries(bpf.LayoutMapServicePorts),
		Backends:     entries(bpf.LayoutMapBackends),
		Slots:        entries(bpf.LayoutMapSlots),
		Flows:        entries(bpf.LayoutMapFlows),
		HalfOpen:     entries(bpf.LayoutMapHalfOpen),
		Closed:       entries(bpf.LayoutMapClosed),
		Affinity:     entries(bpf.LayoutMapAffinity),
		SourceRanges: entries(bpf.LayoutMapSourceRanges),
	}
}

// byMap is s by map name. Maps it does not name have a fixed size.
func (s Sizes) byMap() map[string]uint32 {
	return map[string]uint32{
		bpf.LayoutMapFrontends:    s.Frontends,
		bpf.LayoutMapServicePorts: s.ServicePorts,
		bpf.LayoutMapBackends:     s.Backends,
		bpf.LayoutMapBackendStats: s.Backends,
		bpf.LayoutMapSlots:        s.Slots,
		bpf.LayoutMapFlows:        s.Flows,
		bpf.LayoutMapHalfOpen:     s.HalfOpen,
		bpf.LayoutMapClosed:       s.Closed,
		bpf.LayoutMapAffinity:     s.Affinity,
		bpf.LayoutMapSourceRanges: s.SourceRanges,
		bpf.LayoutMapAddresses:    s.Frontends + nodeAddresses,
	}
}

// nodeAddresses is the room for addresses of the node. Those of Services have
// a frontend each, so there is always room for them too.
const nodeAddresses = 1024

// specs is the layout with these sizes.
func (s Sizes) specs() (map[string]*ebpf.MapSpec, error) {
	specs, err := layout()
	if err != nil {
		return nil, err
	}
	granted, err := s.Granted()
	if err != nil {
		return nil, err
	}
	for name, size := range granted.byMap() {
		if size == 0 {
			return nil, fmt.Errorf("map %s: size 0", name)
		}
		specs[name].MaxEntries = size
	}
	return specs, nil
}

// perCPU is the least that one CPU gets of a map whose entries are divided among
// them, unless the whole map was asked to be smaller than that.
const perCPU = 2048

// shared is how many entries such a map gets if entries were asked for.
func shared(entries, cpus uint32) uint32 {
	each := (entries + cpus - 1) / cpus
	if entries > perCPU {
		each = max(each, perCPU)
	}
	return each * cpus
}

// Granted are the capacities of maps that are created with s: those that the kernel
// divides among the CPUs are a multiple of their number, and large enough for each.
func (s Sizes) Granted() (Sizes, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return Sizes{}, fmt.Errorf("size maps: %w", err)
	}
	s.HalfOpen, s.Closed = shared(s.HalfOpen, uint32(cpus)), shared(s.Closed, uint32(cpus))
	return s, nil
}

// layout is what the datapath was compiled with, by map name.
func layout() (map[string]*ebpf.MapSpec, error) {
	spec, err := bpf.LoadLayout()
	if err != nil {
		return nil, fmt.Errorf("read layout: %w", err)
	}
	out := make(map[string]*ebpf.MapSpec)
	for _, name := range mapNames() {
		m, ok := spec.Maps[name]
		if !ok {
			return nil, fmt.Errorf("read layout: no map %s", name)
		}
		out[name] = m
	}
	return out, nil
}

// fits reports how m differs from the layout spec. Sizes an operator may
// choose, and that of the devices map, are not part of the layout.
func fits(m *ebpf.Map, spec *ebpf.MapSpec) error {
	has := shape{m.Type(), m.KeySize(), m.ValueSize(), m.Flags()}
	want := shape{spec.Type, spec.KeySize, spec.ValueSize, spec.Flags}
	if has != want {
		return fmt.Errorf("has %s; layout %d wants %s", has, LayoutVersion, want)
	}
	fixed := spec.Name == bpf.LayoutMapCounters || spec.Name == bpf.LayoutMapRuntime || spec.Name == bpf.LayoutMapRoutes
	if fixed && m.MaxEntries() != spec.MaxEntries {
		return fmt.Errorf("has %d entries; layout %d wants %d", m.MaxEntries(), LayoutVersion, spec.MaxEntries)
	}
	return nil
}

// shape is what programs and tools must agree on about a map.
type shape struct {
	kind       ebpf.MapType
	key, value uint32 // bytes
	flags      uint32
}

func (s shape) String() string {
	return fmt.Sprintf("kind %s, key %d bytes, value %d bytes, flags %#x", s.kind, s.key, s.value, s.flags)
}
