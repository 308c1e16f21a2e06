package loader

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
	"github.com/ebb-lb/ebb/maps"
)

// Collector runs the program that removes flows which are over. When they are
// is written in the programs alone (bpf/abi/types.h, enum flow_timeout), which also
// do it themselves where room is short. It is safe for concurrent use. The owner
// closes it.
type Collector struct{ prog *ebpf.Program }

// Collection is what is left in the maps of flows, in entries, and how many were
// removed from them.
type Collection struct {
	Flows, HalfOpen, Closed uint32
	Deleted                 uint32
	// Pods is how many of what is left act at pods' links.
	Pods uint32
}

// NewCollector loads the program, working on the maps of set, which stay the
// caller's.
func NewCollector(set *maps.Set) (*Collector, error) {
	hz, err := KernelHZ()
	if err != nil {
		return nil, fmt.Errorf("new collector: %w", err)
	}
	l := objectLoader{vars: clockVariables(hz), maps: set.Replacements()}
	c := new(Collector)
	if err := l.object("collect", bpf.LoadCollect, map[string]**ebpf.Program{programCollect: &c.prog}); err != nil {
		return nil, fmt.Errorf("new collector: %w", err)
	}
	return c, nil
}

// Collect looks at every flow once. The kernel does that in one go: about 20 ms
// of one CPU for 262144 entries, in which it may be interrupted.
func (c *Collector) Collect() (Collection, error) {
	var out bpf.CollectCollection
	if _, err := c.prog.Run(&ebpf.RunOptions{Context: out, ContextOut: &out}); err != nil {
		return Collection{}, fmt.Errorf("collect flows: %w", err)
	}
	return Collection{Flows: out.Flows, HalfOpen: out.HalfOpen, Closed: out.Closed, Deleted: out.Deleted, Pods: out.Pods}, nil
}

// Close releases the program.
func (c *Collector) Close() error { return c.prog.Close() }
