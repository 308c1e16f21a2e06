package plan_test

import (
	"errors"
	"fmt"
	stdmaps "maps"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/ids"
	"github.com/ebb-lb/ebb/agent/plan"
	"github.com/ebb-lb/ebb/agent/plan/plantest"
	"github.com/ebb-lb/ebb/agent/service"
)

const (
	histories = 60
	steps     = 40
)

// roomy is enough for every history.
var roomy = plan.Capacities{Frontends: 1 << 10, ServicePorts: 1 << 10, Backends: 1 << 10, Slots: 1 << 18, SourceRanges: 1 << 10}

// world is a random cluster, the maps of one of its nodes, and their planner.
type world struct {
	*testing.T
	rng     *rand.Rand
	cluster *plantest.Cluster
	kernel  *plantest.Kernel
	planner *plan.Planner
	full    bool
	quiet   bool // no backend has live flows
	// lacking are the services there was no room for in the last sync. They are
	// tried again in the next one.
	lacking map[service.Name]error
}

func newWorld(t *testing.T, seed uint64, room plan.Capacities) *world {
	rng := rand.New(rand.NewPCG(seed, 0))
	k := plantest.NewKernel(room)
	return &world{
		T: t, rng: rng, cluster: plantest.NewCluster(rng), kernel: k,
		planner: plan.New(room, k.State()), full: true,
	}
}

// sync plans and carries out n writes of it, all if n is negative, and returns
// how many writes were planned.
func (w *world) sync(n int) int {
	w.Helper()
	if clear(w.kernel.Flows); !w.quiet {
		w.cluster.Busy(w.kernel)
	}
	for name := range w.lacking {
		w.cluster.Touch(name)
	}
	in := w.cluster.Input(w.full)
	in.Live, w.full = w.kernel.Live, false
	p, failed := w.planner.Plan(w.kernel.Now, in)
	w.lacking = failed
	stdmaps.DeleteFunc(failed, func(_ service.Name, err error) bool { return !errors.Is(err, ids.ErrFull) })
	w.kernel.Run(p, n)
	for _, v := range w.kernel.Violations() {
		w.Fatalf("%s\nin the plan\n%s", v, p)
	}
	return p.Len()
}

func (w *world) pass() {
	w.kernel.Now = w.kernel.Now.Add(time.Duration(w.rng.IntN(4000)) * time.Millisecond)
}

// checkWanted compares the maps with what a naive reading of the cluster wants.
func (w *world) checkWanted(want map[string]string) {
	w.Helper()
	got := make(map[string]string)
	for f, to := range w.kernel.Content() {
		got[f.String()] = to
	}
	if d := cmp.Diff(want, got); d != "" {
		w.Fatalf("the maps are not what the cluster wants (-want +got):\n%s", d)
	}
	addrs, err := w.kernel.Addresses().All()
	byValue := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if d := cmp.Diff(w.cluster.WantedAddresses(w.kernel), addrs, byValue); d != "" || err != nil {
		w.Fatalf("error %v, addresses (-want +got):\n%s", err, d)
	}
}

func (w *world) wanted() map[string]string {
	want := make(map[string]string)
	for f, to := range w.cluster.Wanted(w.kernel.Owners()) {
		want[f.String()] = to
	}
	return want
}

// everyHistory runs fn for random histories; the name of a case is its seed.
func everyHistory(t *testing.T, fn func(w *world)) {
	for seed := range uint64(histories) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { fn(newWorld(t, seed, roomy)) })
	}
}

func TestMapsFollowTheClusterAndTheInvariantHoldsAtEveryWrite(t *testing.T) {
	everyHistory(t, func(w *world) {
		for range steps {
			w.cluster.Step()
			want := w.wanted()
			w.sync(-1)
			w.checkWanted(want)
			w.pass()
		}
	})
}

func TestANodeThatMovesToAnotherZoneFollowsItsHints(t *testing.T) {
	moved := 0
	everyHistory(t, func(w *world) {
		for range steps {
			w.cluster.Step()
			w.sync(-1)
			w.pass()
			before := w.wanted()
			w.cluster.Move()
			w.full = true
			if want := w.wanted(); !cmp.Equal(before, want) {
				moved++
			}
			want := w.wanted()
			w.sync(-1)
			w.checkWanted(want)
			w.pass()
		}
	})
	if moved == 0 {
		t.Error("no move to another zone made a difference")
	}
}

func TestARestartWithoutChangesWritesNothing(t *testing.T) {
	everyHistory(t, func(w *world) {
		for range steps {
			w.cluster.Step()
			w.sync(-1)
			w.pass()
		}
		w.planner, w.full = plan.New(roomy, w.kernel.State()), true
		if n := w.sync(-1); n != 0 {
			w.Errorf("%d writes after a restart, want none", n)
		}
	})
}

func TestWorkBrokenOffAnywhereIsTakenUp(t *testing.T) {
	everyHistory(t, func(w *world) {
		for range steps {
			w.cluster.Step()
			w.sync(w.rng.IntN(20))
			w.planner, w.full = w.planner.Reseed(w.kernel.State()), true
			w.pass()
		}
		want := w.wanted()
		w.sync(-1)
		w.checkWanted(want)
	})
}
