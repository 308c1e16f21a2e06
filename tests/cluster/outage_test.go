package cluster

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/cluster/fault"
)

// resources are what an agent watches.
const resources = 4

// state is what an agent has made of the cluster.
type state struct {
	contents maps.Contents
	writes   float64
}

// state reads the maps of the entry node, and how often its agent has written.
func (w *world) state() state {
	w.Helper()
	var s state
	var err error
	s.contents, err = contents(w.entry)
	w.must(err)
	s.writes, err = w.agents[nodeA].metric(w.Context(), writesMetric)
	w.must(err)
	return s
}

// settled returns the state once what other tests have left behind has been
// seen to: two looks with a while between them see the same.
func (w *world) settled() state {
	w.Helper()
	const while = 500 * time.Millisecond
	last, since := w.state(), time.Now()
	w.must(await(w.Context(), patience, func() error {
		now := w.state()
		if !reflect.DeepEqual(now, last) {
			last, since = now, time.Now()
		}
		if time.Since(since) < while {
			return errors.New("the maps do not come to rest")
		}
		return nil
	}))
	return last
}

// untouched fails the test unless nothing was written since before.
func (w *world) untouched(when string, before state) {
	w.Helper()
	after := w.state()
	if after.writes != before.writes {
		w.Errorf("%s: %g writes to the maps, want none", when, after.writes-before.writes)
	}
	if !reflect.DeepEqual(before.contents, after.contents) {
		w.Errorf("%s: the maps are not what they were", when)
	}
}

// newAgent replaces the agent of the entry node by one that uses the given way
// to the API server.
func (w *world) newAgent(kubeconfig string) {
	w.Helper()
	w.must(w.agents[nodeA].Kill())
	a, err := w.startAgent(w.entry, kubeconfig)
	w.must(err)
	w.must(a.awaitReady(afterwards(w.T)))
}

func TestWhatIsWrongWithTheAPIServerDoesNotReachTheMaps(t *testing.T) {
	tests := []struct {
		name string
		fault.Fault
		refused int // how often the agent is turned away, at least
	}{
		{"connections break", fault.Fault{}, 0},
		{"slow", fault.Fault{Delay: time.Second}, 0},
		{"busy", fault.Fault{Status: http.StatusTooManyRequests}, resources},
		{"failing", fault.Fault{Status: http.StatusServiceUnavailable}, resources},
		{"versions are gone", fault.Fault{Status: http.StatusGone, WatchesOnly: true}, resources},
		{"lists are gone too", fault.Fault{Status: http.StatusGone}, resources},
		{"access is denied", fault.Fault{Status: http.StatusForbidden}, resources},
		{"bookmarks are lost", fault.Fault{NoBookmarks: true}, 0},
	}
	c := getShared(t)
	t.Cleanup(func() { (&world{T: t, cluster: c}).newAgent(c.direct) })
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			w := setup(t)
			w.newAgent(c.indirect) // one that has not learnt yet to be patient with servers
			t.Cleanup(func() { w.proxy.Set(fault.Fault{}) })
			going := w.service(nil)
			w.leadsTo("before", httpPort, addrs(going.cluster4), a1, a2, b1)
			before, counts := w.settled(), w.proxy.Counts()

			w.proxy.Set(tc.Fault)
			w.proxy.Cut()
			w.must(await(t.Context(), patience, func() error { return w.tried(counts, tc.refused) }))
			w.must(w.load.awaitMore(t.Context(), t.Name(), fewest))
			w.untouched("meanwhile", before)

			if tc.refused > 0 {
				going.delete()
				coming := w.service(nil)
				w.must(w.load.awaitMore(t.Context(), t.Name(), fewest))
				w.untouched("after changes nobody could tell", before)
				w.proxy.Set(fault.Fault{})
				w.leadsTo("made up for", httpPort, addrs(coming.cluster4, coming.cluster6), a1, a2, b1)
			} else {
				going.delete()
			}
			w.nobody("made up for", httpPort, going.cluster4)
		})
	}
}

// tried reports whether the agent has asked for everything since then, and was
// turned away as often as given.
func (w *world) tried(then fault.Counts, refused int) error {
	now := w.proxy.Counts()
	asked := now.Lists + now.Watches - then.Lists - then.Watches
	if asked < resources || now.Refused-then.Refused < refused {
		return fmt.Errorf("the agent has asked %d times and was refused %d times", asked, now.Refused-then.Refused)
	}
	return nil
}

func TestARestartedAPIServerChangesNothing(t *testing.T) {
	w := setup(t)
	before := w.settled()
	requests := w.requests()
	w.must(w.plane.KillAPIServer())
	w.must(w.load.awaitMore(t.Context(), t.Name(), fewest))
	w.untouched("without an API server", before)
	w.must(w.plane.StartAPIServer(t.Context()))
	w.must(await(t.Context(), reconnectBound, func() error { return w.watching(requests) }))
	w.untouched("with the next one", before)
	w.everybodyBack(requests)
}

// everybodyBack waits until agents and controllers have come back to the API
// server since the first requests, so that what comes next need not wait for them.
func (w *world) everybodyBack(first int) {
	w.Helper()
	s := w.service(nil)
	w.must(await(w.Context(), reconnectBound, func() error {
		return errors.Join(w.watching(first), w.sliced(s.name))
	}))
	w.leadsTo("a service since the restart", httpPort, addrs(s.cluster4), a1, a2, b1)
}

// requests is how many requests of agents there were so far.
func (w *world) requests() int {
	w.Helper()
	requests, err := w.plane.Requests()
	w.must(err)
	return len(requests)
}

// sliced reports whether the controllers, which also have to come back, have
// seen a service.
func (w *world) sliced(name string) error {
	list, err := w.client.DiscoveryV1().EndpointSlices(standing).List(w.Context(),
		metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + name})
	if err == nil && len(list.Items) == 0 {
		err = fmt.Errorf("no EndpointSlice of %s", name)
	}
	return err
}

// watching reports whether every agent watches everything, of which the first
// requests are no proof.
func (w *world) watching(first int) error {
	requests, err := w.plane.Requests()
	if err != nil {
		return err
	}
	watches := map[string]int{}
	for _, r := range requests[first:] {
		if r.Verb == "watch" && r.Code == http.StatusOK {
			watches[r.Resource]++
		}
	}
	for _, r := range []string{"services", "endpointslices", "nodes", "servicecidrs"} {
		if watches[r] < len(w.agents) {
			return fmt.Errorf("watches of agents: %v, want %d of %s", watches, len(w.agents), r)
		}
	}
	return nil
}

func TestAnAgentWithoutAnAPIServerServesWhatIsPinned(t *testing.T) {
	w := setup(t)
	began := time.Now()
	s := w.service(nil)
	w.leadsTo("before", httpPort, addrs(s.cluster4), a1, a2, b1)
	before := w.settled()
	w.must(await(t.Context(), patience, func() error { return w.completeSince(began) }))
	w.must(w.agents[nodeA].Kill())
	killed, requests := time.Now(), w.requests()
	w.must(w.plane.KillAPIServer())
	a, err := w.startAgent(w.entry, w.direct)
	w.must(err)
	w.must(await(t.Context(), patience, func() error {
		if _, err := a.metric(t.Context(), writesMetric); err != nil {
			return fmt.Errorf("%w\n%s", err, a.log)
		}
		return nil
	}))
	w.must(w.load.awaitMore(t.Context(), t.Name(), fewest))
	w.leadsTo("pinned", httpPort, addrs(s.cluster4, s.cluster6), a1, a2, b1)
	_, err = a.get(t.Context(), "http://"+healthAddr+"/healthz")
	if err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("an agent that has seen no API server says of itself: %v, want 503", err)
	}
	before.writes = 0
	w.untouched("without an API server", before)
	w.check("age", w.completeSince(began))
	if w.completeSince(killed) == nil || !strings.Contains(a.log.String(), "serving what is pinned") {
		t.Errorf("the agent does not say how old what it serves is:\n%s", a.log)
	}
	w.must(w.plane.StartAPIServer(t.Context()))
	w.must(a.awaitReady(t.Context()))
	w.untouched("with an API server that knows the same", before)
	w.check("age", await(t.Context(), patience, func() error { return w.completeSince(killed) }))
	w.everybodyBack(requests)
}

// completeSince reports whether the agent says that all it knew was in the maps
// after t.
func (w *world) completeSince(t time.Time) error {
	seconds, err := w.agents[nodeA].metric(w.Context(), completeMetric)
	if err != nil {
		return err
	}
	if at := time.UnixMilli(int64(seconds * 1000)); at.Before(t) {
		return fmt.Errorf("all was in the maps at %s, not since %s", at, t)
	}
	return nil
}
