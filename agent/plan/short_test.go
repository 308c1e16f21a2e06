package plan_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/plan"
)

// short is a capacity that is too small in one respect.
type short struct {
	name string
	room plan.Capacities
	flag string
	// others: services that lack nothing are complete. Where frontends are
	// short, who wins one cannot be foretold.
	others bool
}

func shortages() []short {
	with := func(change func(*plan.Capacities)) plan.Capacities {
		c := roomy
		change(&c)
		return c
	}
	return []short{
		{"backends", with(func(c *plan.Capacities) { c.Backends = 7 }), "--max-backends", true},
		{"slots", with(func(c *plan.Capacities) { c.Slots = 1200 }), "--max-slots", true},
		{"frontends", with(func(c *plan.Capacities) { c.Frontends = 6 }), "--max-frontends", false},
		{"service ports", with(func(c *plan.Capacities) { c.ServicePorts = 4 }), "--max-frontends", false},
		{"source ranges", with(func(c *plan.Capacities) { c.SourceRanges = 6 }), "--max-source-ranges", true},
	}
}

// everyShortage runs fn for histories in maps that are too small.
func everyShortage(t *testing.T, fn func(w *world, s short)) {
	for _, s := range shortages() {
		for seed := range uint64(histories / 3) {
			t.Run(fmt.Sprintf("%s, seed %d", s.name, seed), func(t *testing.T) { fn(newWorld(t, seed, s.room), s) })
		}
	}
}

func TestWithoutRoomNothingLeadsToAnEndpointThatLeft(t *testing.T) {
	lacked := map[string]int{}
	everyShortage(t, func(w *world, s short) {
		for range steps {
			w.cluster.Step()
			want := w.wanted()
			w.sync(-1)
			for _, stray := range w.cluster.Strays(w.kernel) {
				w.Fatal(stray)
			}
			for name, err := range w.lacking {
				lacked[s.name]++
				if !strings.Contains(err.Error(), s.flag) {
					w.Errorf("%s: the error does not say what to do: %v", name, err)
				}
			}
			if s.others {
				w.checkOthers(want)
			}
			w.pass()
		}
	})
	for _, s := range shortages() {
		if lacked[s.name] == 0 {
			t.Errorf("there was always room for %s", s.name)
		}
	}
}

// checkOthers compares the frontends of the services that lack nothing.
func (w *world) checkOthers(want map[string]string) {
	w.Helper()
	owners := w.kernel.Owners()
	for f, got := range w.kernel.Content() {
		if w.lacking[owners[f]] != nil {
			continue
		}
		if d := cmp.Diff(want[f.String()], got); d != "" {
			w.Fatalf("%s of a service that lacks nothing (-want +got):\n%s", f, d)
		}
	}
}

func TestWithRoomAgainEverythingIsAsWanted(t *testing.T) {
	healed := map[string]int{}
	everyShortage(t, func(w *world, s short) {
		for range steps {
			w.cluster.Step()
			w.sync(-1)
			w.pass()
		}
		w.cluster.Shrink(1)
		w.quiet = true
		for range 4 {
			w.sync(-1)
			w.kernel.Now = w.kernel.Now.Add(2 * plan.Grace)
		}
		if len(w.lacking) > 0 {
			return // what is left alone is too much
		}
		healed[s.name]++
		w.checkWanted(w.wanted())
		w.planner, w.full = w.planner.Reseed(w.kernel.State()), true
		if n := w.sync(-1); n != 0 {
			w.Errorf("%d writes after a restart, want none", n)
		}
	})
	for _, s := range shortages() {
		if healed[s.name] == 0 {
			t.Errorf("what lacked %s never found room", s.name)
		}
	}
}
