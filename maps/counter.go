package maps

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
)

// Counters is access to the map counters: packets by hook and verdict. Only
// the datapath writes it.
type Counters struct{ m *ebpf.Map }

// All returns the packets of each hook and verdict since the map was created,
// summed over CPUs. Every verdict known by name is there, also at 0; others,
// of a newer datapath, where they were counted.
func (a Counters) All() (map[Hook]map[Verdict]uint64, error) {
	out := make(map[Hook]map[Verdict]uint64, HookCount)
	for hook := range HookCount {
		out[hook] = make(map[Verdict]uint64)
		for v := range VerdictMax {
			n, err := a.get(hook, v)
			if err != nil {
				return nil, fmt.Errorf("read counter %s %s: %w", hook, v, err)
			}
			if n > 0 || v.known() {
				out[hook][v] = n
			}
		}
	}
	return out, nil
}

func (a Counters) get(h Hook, v Verdict) (uint64, error) {
	var cpus []uint64
	if err := a.m.Lookup(uint32(h)*uint32(VerdictMax)+uint32(v), &cpus); err != nil {
		return 0, err
	}
	var sum uint64
	for _, n := range cpus {
		sum += n
	}
	return sum, nil
}

// Stats is access to the map backend_stats: what each backend has done. Only
// the datapath writes it.
type Stats struct{ m *ebpf.Map }

// Get returns what the backends at index id have done since it was first used,
// summed over CPUs.
func (a Stats) Get(id BackendID) (BackendCounts, error) {
	if err := id.Within(a.m.MaxEntries()); err != nil {
		return BackendCounts{}, fmt.Errorf("read stats of backend %d: %w", id, err)
	}
	var cpus []bpf.LayoutBackendCounts
	if err := a.m.Lookup(uint32(id), &cpus); err != nil {
		return BackendCounts{}, fmt.Errorf("read stats of backend %d: %w", id, err)
	}
	return sumCounts(cpus), nil
}

// All returns what Get does for each of ids.
func (a Stats) All(ids []BackendID) (map[BackendID]BackendCounts, error) {
	out := make(map[BackendID]BackendCounts, len(ids))
	for _, id := range ids {
		counts, err := a.Get(id)
		if err != nil {
			return nil, err
		}
		out[id] = counts
	}
	return out, nil
}
