package maps

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
)

// RouteTicks is after how many ticks a flow looks its route up again although
// nothing has changed (ROUTE_TICKS in bpf/route/route.h). It may take one from another
// flow that is as old.
const RouteTicks = 32

// RouteState is what programs are told of the kernel's routes. Times are ticks (see
// Clock).
type RouteState struct {
	// Changed is when routes have last changed: what was looked up until then is
	// looked up again.
	Changed uint32
	// Until is how long programs may rely on being told of changes, and on
	// neighbours being kept fresh. After that they look routes up once a tick.
	Until uint32
	// Multipath: there may be routes with several paths.
	Multipath bool
	// BySource: there may be rules that look at where a packet comes from.
	BySource bool
	// Secured: there is something in the map secured.
	Secured bool
}

// Routes is access to the map routes, which has one entry.
type Routes struct{ m *ebpf.Map }

// Get reads the state; the zero RouteState if none was put.
func (a Routes) Get() (RouteState, error) {
	var v bpf.LayoutRouteState
	if err := a.m.Lookup(uint32(0), &v); err != nil {
		return RouteState{}, fmt.Errorf("read routes: %w", err)
	}
	return fromRouteState(&v), nil
}

// Put replaces the state.
func (a Routes) Put(s RouteState) error {
	k, v := uint32(0), toRouteState(s)
	if err := a.m.Put(&k, &v); err != nil {
		return fmt.Errorf("put routes: %w", err)
	}
	return nil
}

// NextHop is a neighbour by which packets are sent on.
type NextHop struct {
	Ifindex uint32
	Addr    netip.Addr
}

// String formats h as "10.0.0.1 on device 2".
func (h NextHop) String() string { return fmt.Sprintf("%s on device %d", h.Addr, h.Ifindex) }

// Neighbour is what programs note of a next hop. Times are ticks (see Clock).
type Neighbour struct {
	// Used is when a route by it was last looked up.
	Used uint32
	// Probed is when a packet last went to it by the kernel's neighbour code.
	Probed uint32
}

// Neighbours is access to the map neighbours. The datapath writes it, and evicts
// the entry least recently used when it is full.
type Neighbours struct{ m *ebpf.Map }

// Each calls fn for every entry, in no order, until fn returns false.
func (a Neighbours) Each(fn func(NextHop, Neighbour) bool) error {
	err := each(a.m, func(k *bpf.LayoutNeighbourKey, v *bpf.LayoutNeighbour) bool {
		return fn(fromNeighbourKey(k), Neighbour{Used: v.Used, Probed: v.Probed})
	})
	if err != nil {
		return fmt.Errorf("read neighbours: %w", err)
	}
	return nil
}

// Lookup returns the entry of h and whether there is one.
func (a Neighbours) Lookup(h NextHop) (Neighbour, bool, error) {
	if checkAddr(h.Addr) != nil {
		return Neighbour{}, false, nil // cannot be in the map
	}
	k := toNeighbourKey(h)
	var v bpf.LayoutNeighbour
	err := a.m.Lookup(&k, &v)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return Neighbour{}, false, nil
	}
	if err != nil {
		return Neighbour{}, false, fmt.Errorf("look up neighbour %s: %w", h, err)
	}
	return Neighbour{Used: v.Used, Probed: v.Probed}, true, nil
}

// Put inserts or replaces an entry, for tests: they belong to the datapath.
func (a Neighbours) Put(h NextHop, n Neighbour) error {
	if err := checkAddr(h.Addr); err != nil {
		return fmt.Errorf("put neighbour %s: %w", h, err)
	}
	k, v := toNeighbourKey(h), bpf.LayoutNeighbour{Used: n.Used, Probed: n.Probed}
	if err := a.m.Put(&k, &v); err != nil {
		return fmt.Errorf("put neighbour %s: %w", h, fullError(err))
	}
	return nil
}

// Delete removes the entry of h. An absent entry is not an error.
func (a Neighbours) Delete(h NextHop) error {
	if checkAddr(h.Addr) != nil {
		return nil // cannot be in the map, and must not be taken for what is
	}
	k := toNeighbourKey(h)
	if err := a.m.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete neighbour %s: %w", h, err)
	}
	return nil
}
