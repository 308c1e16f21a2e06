package maps

import (
	"errors"
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
	keys, sums, err := a.read()
	if err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	out := make(map[Hook]map[Verdict]uint64, HookCount)
	for hook := range HookCount {
		out[hook] = make(map[Verdict]uint64)
	}
	for i, key := range keys {
		hook, v := Hook(key/uint32(VerdictMax)), Verdict(key%uint32(VerdictMax))
		if sums[i] > 0 || v.known() {
			out[hook][v] = sums[i]
		}
	}
	return out, nil
}

// read returns every key and its value summed over CPUs, by one system call.
func (a Counters) read() (keys []uint32, sums []uint64, err error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, nil, err
	}
	n := int(HookCount) * int(VerdictMax)
	keys, sums = make([]uint32, n), make([]uint64, n)
	values := make([]uint64, n*cpus)
	got, err := a.m.BatchLookup(new(ebpf.MapBatchCursor), keys, values, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, nil, err
	}
	if got != n {
		return nil, nil, fmt.Errorf("%d entries instead of %d", got, n)
	}
	for i := range values {
		sums[i/cpus] += values[i]
	}
	return keys, sums, nil
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
