package topology

import (
	"slices"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/lab/load"
)

// writesMetric counts the writes of the agent that serves it.
const writesMetric = "ebb_map_writes_total"

// operations is how many operations of each kind are seen to end in each phase
// of a test: with an agent, without one, with the next one.
const operations = 10

// Long transfers, new connections and datagrams go on while the agent is
// killed, is away, and comes back.
func TestAKilledAgentIsNotMissed(t *testing.T) {
	w := newWorld(t)
	first := w.startReadyAgent()
	if n := w.metric(writesMetric); n == 0 {
		t.Fatal("the first agent has written nothing")
	}
	clients := w.startTraffic()
	clients.goesOn()

	before := w.snapshot()
	first.kill()
	clients.goesOn()
	w.wantSame("without an agent", before, w.snapshot())

	second := w.startReadyAgent()
	if n := w.metric(writesMetric); n != 0 {
		t.Errorf("an agent that came back to an unchanged source made %d writes, want 0", n)
	}
	w.wantSame("after a restart with an unchanged source", before, w.snapshot())
	clients.goesOn()

	second.kill()
	left, stay := w.pods[0], w.pods[1:]
	w.publish(stay...)
	w.startReadyAgent()
	after := w.snapshot()
	w.checkChange(before, after, left.Addr4.String(), left.Addr6.String())
	clients.goesOn()
	w.checkAnswers(clients.finish())
}

// traffic is everything clients do: new connections, datagrams, transfers one
// after the other, and one transfer to each address from before the first kill
// to the end.
type traffic struct {
	client    *client
	transfers []*transfer
}

func (w *world) startTraffic() traffic {
	w.Helper()
	tr := traffic{client: w.startClient()}
	http, _ := w.targets()
	for _, target := range http {
		tr.transfers = append(tr.transfers, w.startTransfer(target))
	}
	return tr
}

// goesOn waits until something of every kind has succeeded since now.
func (tr traffic) goesOn() {
	tr.client.w.Helper()
	tr.client.awaitMore(operations)
	for _, t := range tr.transfers {
		t.awaitMore()
	}
}

func (tr traffic) finish() load.Report {
	tr.client.w.Helper()
	for _, t := range tr.transfers {
		t.finish()
	}
	return tr.client.finish()
}

// checkChange looks at what an agent wrote that came back to a source without
// the pod with these addresses.
func (w *world) checkChange(before, after snapshot, gone ...string) {
	w.Helper()
	if got, want := w.metric(writesMetric), writesBetween(before, after); got != want || want == 0 {
		w.Errorf("%d writes after a restart with a changed source; the maps differ by %d", got, want)
	}
	w.checkTables(before, after)
	for _, addr := range gone {
		if got, want := after.backendStates(addr), []string{"gone/5353", "gone/8080"}; !slices.Equal(got, want) {
			w.Errorf("backends of %s are %v, want %v", addr, got, want)
		}
	}
	for id, b := range before.contents.Backends {
		if slices.Contains(gone, b.Addr.Addr().String()) {
			b.State, b.InCluster, b.InLocal = maps.Gone, false, false
		}
		if after.contents.Backends[id] != b {
			w.Errorf("backend %d is %+v, want %+v", id, after.contents.Backends[id], b)
		}
	}
}

// checkAnswers fails the test unless every pod had its share of every kind.
func (w *world) checkAnswers(r load.Report) {
	w.Helper()
	if len(r.Pods) != len(w.pods) {
		w.Errorf("%d pods answered, want %d: %+v", len(r.Pods), len(w.pods), r.Pods)
	}
	for _, p := range r.Pods {
		if p.Connections == 0 || p.Datagrams == 0 {
			w.Errorf("pod %s answered %d connections and %d datagrams", p.Pod, p.Connections, p.Datagrams)
		}
	}
	for _, a := range r.Acts {
		requests, failed := a.Totals()
		w.Logf("%d operations, %d failed", requests, failed)
	}
}
