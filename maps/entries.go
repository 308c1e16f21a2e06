package maps

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ErrFull means that a map has no room for another entry.
var ErrFull = errors.New("map is full")

// entries is one map with its counter of writes.
type entries struct {
	m      *ebpf.Map
	writes *atomic.Uint64
}

// put inserts or replaces; key and value point to layout types.
func (e entries) put(key, value any) error {
	if err := e.m.Put(key, value); err != nil {
		return fullError(err)
	}
	e.writes.Add(1)
	return nil
}

// del deletes what key points to. An absent entry is not an error.
func (e entries) del(key any) error {
	err := e.m.Delete(key)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	e.writes.Add(1)
	return nil
}

// fullError adds ErrFull to what the kernel says when there is no room.
func fullError(err error) error {
	for _, errno := range []unix.Errno{unix.E2BIG, unix.ENOSPC, unix.ENOMEM} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
	}
	return err
}

// batchSize is how many entries are read by one system call. It bounds what a
// pass over a map of any size keeps in memory.
const batchSize = 1024

// each calls fn for the entries of a hash or array map until fn returns false.
// fn may write to the map.
//
// The kernel copies a hash map by whole buckets, each under its lock, and an
// entry never changes its bucket. So an entry that is there during the whole
// pass is seen exactly once, and nothing that comes or goes meanwhile can
// abort the pass or make it start again, unlike iteration by key.
func each[K, V any](m *ebpf.Map, fn func(*K, *V) bool) error {
	return eachBatch(m, batchSize, fn)
}

func eachBatch[K, V any](m *ebpf.Map, size int, fn func(*K, *V) bool) error {
	var cursor ebpf.MapBatchCursor
	keys, values := make([]K, size), make([]V, size)
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		// A bucket with more entries than the batch; the cursor stays at it.
		if errors.Is(err, unix.ENOSPC) && len(keys) <= int(m.MaxEntries()) {
			keys, values = make([]K, 2*len(keys)), make([]V, 2*len(values))
			continue
		}
		if err != nil && !last {
			return err
		}
		for i := range n {
			if !fn(&keys[i], &values[i]) {
				return nil
			}
		}
		if last {
			return nil
		}
	}
}
