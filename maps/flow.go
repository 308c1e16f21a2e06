package maps

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
)

// Flows is access to one of the maps flows, half_open and closed. An entry may
// vanish at any time: the datapath removes it, and the last two evict the entry
// least recently used when they are full.
type Flows struct {
	m    *ebpf.Map
	name string // what errors call an entry
	half bool
}

// Counterpart is the key of the entry for the other direction of the flow.
func Counterpart(k FlowKey, f Flow) FlowKey {
	return FlowKey{Src: f.Dst, Dst: f.Src, Proto: k.Proto}
}

// Each calls fn for every flow, in no order, until fn returns false. fn may
// delete flows. It needs little memory whatever the number of flows; a flow
// that comes or goes meanwhile may be seen or not, none is seen twice unless
// it went and came back.
func (a Flows) Each(fn func(FlowKey, Flow) bool) error {
	var err error
	if a.half {
		err = each(a.m, func(k *bpf.LayoutFlowKey, v *bpf.LayoutHalfFlow) bool {
			return fn(fromFlowKey(k), fromHalfFlow(v))
		})
	} else {
		err = each(a.m, func(k *bpf.LayoutFlowKey, v *bpf.LayoutFlow) bool {
			return fn(fromFlowKey(k), fromFlow(v))
		})
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", a.name, err)
	}
	return nil
}

// Lookup returns the flow of k and whether there is one.
func (a Flows) Lookup(k FlowKey) (Flow, bool, error) {
	if k.Validate() != nil {
		return Flow{}, false, nil // cannot be in the map
	}
	f, err := a.lookup(k)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return Flow{}, false, nil
	}
	if err != nil {
		return Flow{}, false, fmt.Errorf("look up %s %s: %w", a.name, k, err)
	}
	return f, true, nil
}

func (a Flows) lookup(k FlowKey) (Flow, error) {
	key := toFlowKey(k)
	if a.half {
		var v bpf.LayoutHalfFlow
		err := a.m.Lookup(&key, &v)
		return fromHalfFlow(&v), err
	}
	var v bpf.LayoutFlow
	err := a.m.Lookup(&key, &v)
	return fromFlow(&v), err
}

// Delete removes the entry of k, not its counterpart. An absent entry is not
// an error.
func (a Flows) Delete(k FlowKey) error {
	if k.Validate() != nil {
		return nil // cannot be in the map, and must not be taken for what is
	}
	key := toFlowKey(k)
	if err := a.m.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete %s %s: %w", a.name, k, err)
	}
	return nil
}

// Put inserts or replaces the entry of k, for tests: a flow belongs to the
// datapath, whose cached route is lost. Since is kept by half-open flows only.
func (a Flows) Put(k FlowKey, f Flow) error {
	if err := errors.Join(k.Validate(), f.Validate()); err != nil {
		return fmt.Errorf("put %s %s: %w", a.name, k, err)
	}
	if err := a.put(k, f); err != nil {
		return fmt.Errorf("put %s %s: %w", a.name, k, fullError(err))
	}
	return nil
}

func (a Flows) put(k FlowKey, f Flow) error {
	key := toFlowKey(k)
	if a.half {
		v := toHalfFlow(k, f)
		return a.m.Put(&key, &v)
	}
	v := toFlow(k, f)
	return a.m.Put(&key, &v)
}

// flowFlagNames are the names of the bits, lowest first.
var flowFlagNames = [...]string{
	"reverse", "remote", "fin", "peer-fin", "rst", "peer-rst", "closed", "replied", "pod", "hairpin",
	"stream", "sticky", "taken", "midway", "proved", "again", "occupied", "outward", "guest", "reroute",
}

// String lists the bits of f, lowest first, as "reverse,fin"; "-" if there is
// none.
func (f FlowFlags) String() string { return bitNames(uint32(f), flowFlagNames[:]) }
