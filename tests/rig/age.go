package rig

import (
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
	"github.com/ebb-lb/ebb/loader"
)

// Age makes every flow so many ticks older, established or not, closed or not, and
// so what is remembered of full maps, as if time had passed without a packet.
func (r *Rig) Age(tb testing.TB, ticks uint32) {
	tb.Helper()
	older := func(_ bpf.LayoutFlowKey, f *bpf.LayoutFlow) {
		f.Seen -= ticks
		f.Began -= ticks
	}
	all := r.Set.Replacements()
	change(tb, r, all[bpf.LayoutMapFlows], older)
	change(tb, r, all[bpf.LayoutMapClosed], older)
	change(tb, r, all[bpf.LayoutMapHalfOpen], func(k bpf.LayoutFlowKey, h *bpf.LayoutHalfFlow) { older(k, &h.Flow) })
	change(tb, r, all[bpf.LayoutMapPressure], func(_ uint32, p *bpf.LayoutFlowsPressure) {
		p.Swept -= ticks
		if p.Refused != 0 {
			p.Refused -= ticks
		}
	})
}

// Collect removes what is over, as the agent does now and then.
func (r *Rig) Collect(tb testing.TB) loader.Collection {
	tb.Helper()
	c, err := r.collector.Collect()
	r.must(tb, err)
	return c
}

// change edits every entry of a map.
func change[K comparable, V any](tb testing.TB, r *Rig, m *ebpf.Map, edit func(K, *V)) {
	tb.Helper()
	found := make(map[K]V)
	var key K
	var value V
	it := m.Iterate()
	for it.Next(&key, &value) {
		found[key] = value
	}
	r.must(tb, it.Err())
	for k, v := range found {
		edit(k, &v)
		r.must(tb, m.Update(&k, &v, ebpf.UpdateExist))
	}
}
