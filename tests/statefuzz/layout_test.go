package statefuzz

import (
	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
	"github.com/ebb-lb/ebb/maps"
)

// memory is a map that remembers flows.
type memory struct {
	name  string
	flows maps.Flows
}

func (w *world) memories() []memory {
	return []memory{{"half-open", w.rig.Set.HalfOpen()}, {"closed", w.rig.Set.Closed()}, {"flows", w.rig.Set.Flows()}}
}

// evicting are those of them that may lose an entry at any time.
func (w *world) evicting() []memory {
	all := w.memories()
	if t := w.rig.Set.Replacements()[bpf.LayoutMapFlows].Type(); t == ebpf.LRUHash {
		return all
	}
	return all[:2]
}
