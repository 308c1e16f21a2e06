package statefuzz

import (
	"fmt"
	"slices"

	"github.com/ebb-lb/ebb/maps"
)

// What happens to the node and to pods, not to packets.

func (w *world) changePod(in *input) string {
	p := w.Pods[in.next(len(w.Pods))]
	n := in.next(8)
	switch {
	case n == 0:
		p.Listens = !p.Listens
		return fmt.Sprintf("%s listens: %t", p.Name, p.Listens)
	case n == 1 && p.Alive && w.leave(p, maps.Gone):
		p.Crash()
		p.Alive = false
		return p.Name + " is killed"
	case n < 4 && p.State == maps.Active && w.leave(p, maps.Draining):
		return p.Name + " is draining"
	case n < 5 && p.State != maps.Gone && w.leave(p, maps.Gone):
		return p.Name + " is gone"
	case p.State != maps.Active:
		if !p.Alive || p.State == maps.Gone {
			p.Crash()
		}
		p.Alive, p.Listens = true, true
		w.join(p)
		return p.Name + " is new"
	}
	return ""
}

// evict takes an entry from a map that may evict.
func (w *world) evict(in *input) string {
	from := w.evicting()
	at := in.next(len(from))
	for _, m := range slices.Concat(from[at:], from[:at]) {
		var keys []maps.FlowKey
		w.must(m.flows.Each(func(k maps.FlowKey, _ maps.Flow) bool {
			keys = append(keys, k)
			return true
		}))
		if len(keys) == 0 {
			continue
		}
		slices.SortFunc(keys, func(a, b maps.FlowKey) int {
			if c := a.Src.Compare(b.Src); c != 0 {
				return c
			}
			if c := a.Dst.Compare(b.Dst); c != 0 {
				return c
			}
			return int(a.Proto) - int(b.Proto)
		})
		k := keys[in.next(len(keys))]
		w.must(m.flows.Delete(k))
		w.evicted(k)
		return m.name + " " + k.String()
	}
	return ""
}

// evicted notes what the node cannot know any more.
func (w *world) evicted(k maps.FlowKey) {
	for _, h := range w.Pods {
		if e := h.Ends[k]; e != nil && e.Flow == nil {
			e.Evicted = true
		}
	}
	for _, f := range w.Flows {
		if f.Forward != k && f.Reverse != k {
			continue
		}
		if f.Reverse == k {
			f.NoReverse = true
		}
		if f.Forward.Proto == maps.UDP || f.Proved && !f.Held || !w.known(f.Forward) && !w.known(f.Reverse) {
			f.Forgotten, f.Client.Called = true, nil
		}
	}
}

func (w *world) known(k maps.FlowKey) bool {
	for _, m := range w.memories() {
		_, ok, err := m.flows.Lookup(k)
		w.must(err)
		if ok {
			return true
		}
	}
	return false
}

func (w *world) age(in *input) string {
	n := []uint32{1, 2, 4, 16, 26, 41, 70, 200, 4000, 90000}[in.next(10)]
	w.rig.Age(w.tb, n)
	w.Now += n
	return fmt.Sprintf("%d s", n)
}

// collect has the node remove what is over.
func (w *world) collect(*input) string { return fmt.Sprint(w.rig.Collect(w.tb).Deleted) }

// crash makes a client forget, or begin anew somewhere else.
func (w *world) crash(in *input) string {
	c := w.Clients[in.next(len(w.Clients))]
	c.Crash()
	if c.Name == "pod" && in.next(2) == 1 {
		c.Here = !c.Here
		return fmt.Sprintf("%s, it is on this node now: %t", c.Name, c.Here)
	}
	return c.Name
}

// twoCPUs gives two packets to the node at once, or one twice.
func (w *world) twoCPUs(in *input) string {
	if len(w.Queue) == 0 {
		return ""
	}
	p := w.take(in.next(len(w.Queue)))
	twin := *p
	q := &twin
	if len(w.Queue) > 0 && in.next(2) == 1 {
		q = w.take(in.next(len(w.Queue)))
	} else if p.Forged && p.Proto == maps.UDP {
		w.Queue = append(w.Queue, p)
		return ""
	}
	a, b := w.carryBoth(p, q)
	w.arrive(p, a, true)
	w.arrive(q, b, true)
	w.look()
	return "at once"
}
