package topology

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
)

// agentMaps are the maps that only the agent writes.
func agentMaps() []string {
	return []string{
		bpf.LayoutMapFrontends, bpf.LayoutMapServicePorts, bpf.LayoutMapBackends,
		bpf.LayoutMapSlots, bpf.LayoutMapRuntime, bpf.LayoutMapDevices, bpf.LayoutMapStations,
	}
}

// snapshot is all that is in the agent's maps: every byte of every entry, and
// what it means.
type snapshot struct {
	raw      map[string]map[string]string // map, key, value
	contents maps.Contents
}

// snapshot reads the pinned maps of the entry node, past the agent.
func (w *world) snapshot() snapshot {
	w.Helper()
	s := snapshot{raw: map[string]map[string]string{}}
	err := w.entry.Do(func() error {
		set, err := maps.Open(loader.MapsDir(bpffs), true)
		if err != nil {
			return err
		}
		for _, name := range agentMaps() {
			s.raw[name], err = readAll(set.Replacements()[name])
			if err != nil {
				return errors.Join(err, set.Close())
			}
		}
		s.contents, err = set.Contents()
		return errors.Join(err, set.Close())
	})
	if err != nil {
		w.Fatal(err)
	}
	return s
}

func readAll(m *ebpf.Map) (map[string]string, error) {
	all := make(map[string]string)
	var key, value []byte
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		all[string(key)] = string(value)
	}
	return all, entries.Err()
}

// changed returns the entries of a map that are not the same in both.
func changed(name string, a, b snapshot) []string {
	var keys []string
	for key, value := range a.raw[name] {
		if other, ok := b.raw[name][key]; !ok || other != value {
			keys = append(keys, key)
		}
	}
	for key := range b.raw[name] {
		if _, ok := a.raw[name][key]; !ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// wantSame fails the test unless a and b agree in every byte.
func (w *world) wantSame(when string, a, b snapshot) {
	w.Helper()
	for _, name := range agentMaps() {
		if keys := changed(name, a, b); len(keys) > 0 {
			w.Errorf("%s: %d entries of %s differ, the first has key %x", when, len(keys), name, keys[0])
		}
	}
}

// writesBetween returns how many writes it takes at least to get from a to b:
// one per entry, and one per table.
func writesBetween(a, b snapshot) int {
	n := 0
	for _, name := range agentMaps() {
		if name != bpf.LayoutMapSlots {
			n += len(changed(name, a, b))
		}
	}
	for table, slots := range b.contents.Tables {
		if !slices.Equal(a.contents.Tables[table], slots) {
			n++
		}
	}
	return n
}

// checkTables fails the test if a slot changed that was part of a table, or
// that is not part of one now: tables are written beside those in use.
func (w *world) checkTables(before, after snapshot) {
	w.Helper()
	fresh := map[uint32]bool{}
	for table := range after.contents.Tables {
		for i := range table.Length {
			fresh[table.Offset+i] = true
		}
	}
	for table := range before.contents.Tables {
		for i := range table.Length {
			delete(fresh, table.Offset+i)
		}
	}
	for _, key := range changed(bpf.LayoutMapSlots, before, after) {
		if slot := binary.NativeEndian.Uint32([]byte(key)); !fresh[slot] {
			w.Errorf("slot %d was changed, it is in no table that is new", slot)
			return
		}
	}
}

// backendStates returns the states the backends of an address are in.
func (s snapshot) backendStates(addr string) []string {
	var states []string
	for _, b := range s.contents.Backends {
		if b.Addr.Addr().String() == addr {
			states = append(states, fmt.Sprintf("%s/%d", b.State, b.Addr.Port()))
		}
	}
	slices.Sort(states)
	return states
}

// wantPacketsOnly fails the test if a socket was given a backend: then the client was
// in the agent's control group, and what it got says nothing about uplinks.
func (w *world) wantPacketsOnly() {
	err := w.entry.Do(func() error {
		set, err := maps.Open(loader.MapsDir(bpffs), true)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // cleaned up, or no agent
		}
		if err != nil {
			return err
		}
		all, err := set.Counters().All()
		for _, v := range []maps.Verdict{maps.VerdictToLocal, maps.VerdictToRemote} {
			if n := all[maps.HookSocket][v]; n > 0 {
				w.Errorf("%d sockets were given a backend (%s)", n, v)
			}
		}
		return errors.Join(err, set.Close())
	})
	if err != nil {
		w.Error(err)
	}
}
