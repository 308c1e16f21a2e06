package rig

import (
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
)

// AgeFragments makes what is remembered of fragments so many ticks older.
func (r *Rig) AgeFragments(tb testing.TB, ticks uint32) {
	tb.Helper()
	m := r.Set.Replacements()[bpf.LayoutMapFragments]
	var key bpf.LayoutFragmentKey
	var ports bpf.LayoutFragmentPorts
	for it := m.Iterate(); it.Next(&key, &ports); {
		ports.Seen -= ticks
		r.must(tb, m.Put(key, ports))
	}
}

// empty deletes every entry of m.
func empty[K, V any](tb testing.TB, r *Rig, m *ebpf.Map) {
	tb.Helper()
	var keys []K
	var key K
	var value V
	it := m.Iterate()
	for it.Next(&key, &value) {
		keys = append(keys, key)
	}
	r.must(tb, it.Err())
	for _, k := range keys {
		r.must(tb, m.Delete(k))
	}
}
