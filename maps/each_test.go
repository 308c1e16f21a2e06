package maps

import (
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/ebb-lb/ebb/bpf"
)

// nthKey is a flow key of its own for each i.
func nthKey(i int) FlowKey {
	k := webFlowKey
	k.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 4000)
	return k
}

// putFlows puts the flows first to first+n-1 by as few system calls as possible.
func putFlows(t *testing.T, s *Set, first, n int) {
	t.Helper()
	keys, values := make([]bpf.LayoutFlowKey, n), make([]bpf.LayoutFlow, n)
	for i := range n {
		keys[i] = toFlowKey(nthKey(first + i))
		values[i] = toFlow(nthKey(first+i), webFlow)
	}
	if _, err := s.maps[bpf.LayoutMapFlows].BatchUpdate(keys, values, nil); err != nil {
		t.Fatal(err)
	}
}

func TestABatchSmallerThanABucketGrows(t *testing.T) {
	sizes := smallSizes()
	sizes.Frontends = 256
	s := newSet(t, sizes)
	for i := range uint16(256) {
		if err := s.Frontends().Put(Frontend{web.Addr, 1 + i, TCP}, Service{}); err != nil {
			t.Fatal(err)
		}
	}
	var ports []int
	err := eachBatch(s.maps[bpf.LayoutMapFrontends], 1, func(k *bpf.LayoutFrontendKey, _ *bpf.LayoutFrontend) bool {
		ports = append(ports, int(fromFrontendKey(k).Port))
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ports)
	if len(ports) != 256 || ports[0] != 1 || ports[255] != 256 || len(slices.Compact(ports)) != 256 {
		t.Errorf("saw %d ports: %v", len(ports), ports)
	}
}

func TestReadingStopsWhenToldTo(t *testing.T) {
	s := newSet(t, smallSizes())
	putFlows(t, s, 0, 100)
	n := 0
	if err := s.Flows().Each(func(FlowKey, Flow) bool { n++; return n < 7 }); err != nil {
		t.Fatal(err)
	}
	if n != 7 {
		t.Errorf("saw %d flows, want 7", n)
	}
}

func TestReadingNoFlowsSeesNone(t *testing.T) {
	s := newSet(t, smallSizes())
	for _, flows := range []Flows{s.Flows(), s.HalfOpen()} {
		if err := flows.Each(func(k FlowKey, _ Flow) bool { t.Errorf("saw %s", k); return true }); err != nil {
			t.Error(err)
		}
	}
}

func TestFlowsMayBeDeletedWhileTheyAreRead(t *testing.T) {
	sizes := smallSizes()
	sizes.Flows = 1 << 15
	s := newSet(t, sizes)
	const n = 5000
	putFlows(t, s, 0, n)
	seen := 0
	err := s.Flows().Each(func(k FlowKey, _ Flow) bool {
		seen++
		if err := s.Flows().Delete(k); err != nil {
			t.Error(err)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen != n {
		t.Errorf("saw %d flows of %d", seen, n)
	}
	if err := s.Flows().Each(func(k FlowKey, _ Flow) bool { t.Errorf("%s is left", k); return false }); err != nil {
		t.Error(err)
	}
}

func TestFlowsThatStayAreSeenOnceWhileOthersComeAndGo(t *testing.T) {
	sizes := smallSizes()
	sizes.Flows = 1 << 16
	s := newSet(t, sizes)
	const stay = 3000
	putFlows(t, s, 0, stay)
	stop := make(chan struct{})
	var churn sync.WaitGroup
	churn.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			k := nthKey(stay + i%2000)
			if err := s.Flows().Put(k, webFlow); err != nil {
				t.Error(err)
			}
			if err := s.Flows().Delete(nthKey(stay + (i+1000)%2000)); err != nil {
				t.Error(err)
			}
		}
	})
	for range 20 {
		seen := make(map[FlowKey]int)
		if err := s.Flows().Each(func(k FlowKey, _ Flow) bool { seen[k]++; return true }); err != nil {
			t.Error(err)
		}
		for i := range stay {
			if n := seen[nthKey(i)]; n != 1 {
				t.Errorf("saw %s %d times", nthKey(i), n)
			}
		}
	}
	close(stop)
	churn.Wait()
}

func TestReadingManyFlowsTakesLittleMemory(t *testing.T) {
	sizes := smallSizes()
	sizes.Flows = 1 << 17
	s := newSet(t, sizes)
	const n = 100_000 // 12 MB
	putFlows(t, s, 0, n)
	var before, after runtime.MemStats
	seen := 0
	runtime.ReadMemStats(&before)
	err := s.Flows().Each(func(FlowKey, Flow) bool { seen++; return true })
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if seen != n {
		t.Errorf("saw %d flows of %d", seen, n)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("allocated %d bytes", got)
	}
}
