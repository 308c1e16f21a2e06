package cluster

import (
	"fmt"
	"io"
	stdmaps "maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/lab/load"
)

const (
	// lookEvery is how often the maps are looked at for what the agent knows.
	lookEvery = 10 * time.Millisecond
	// blur is how far apart two clocks of one machine, and two ways to look, may be.
	blur = 50 * time.Millisecond
)

// window is the time in which a pod turned new clients away, and the node
// still sent some: no balancer can know yet that the application has closed.
type window struct{ closed, known time.Time }

func (w window) holds(t time.Time) bool {
	return !t.Before(w.closed.Add(-blur)) && !t.After(w.known.Add(blur))
}

// Applications that stop to listen the moment they are asked to end, in pods
// without preStop, lose the clients that come before the node has been told. What is
// lost is counted and shown; that nothing else is lost is the test.
func TestAHastyApplicationLosesNothingButWhatItTurnsAway(t *testing.T) {
	w := setup(t)
	d := w.deploy(style{kind: hasty, surge: one, unavailable: none})
	http, _ := d.targets()
	d.startLoadOn(http, nil) // nobody knows when a datagram was turned away
	look := w.watchBackends()
	addrOf := d.addresses()
	d.roll()
	d.awaitRolledOut()
	w.leadsTo("after the rollout", httpPort, addrs(d.svc.lb4, d.svc.lb6), d.pods()...) // the node knows the last change
	known := look()
	r, err := d.load.finish(t.Context())
	w.must(err)

	windows := map[string]window{}
	for name, both := range addrOf {
		at, err := w.said.closed(name)
		w.must(err)
		windows[name] = window{closed: at, known: at}
		for _, addr := range both {
			if known[addr].IsZero() {
				t.Errorf("the agent never knew that %s ended at %s", name, addr)
			}
			if known[addr].After(windows[name].known) {
				windows[name] = window{closed: at, known: known[addr]}
			}
		}
		t.Logf("%s turned clients away for %s before the node knew", name, windows[name].known.Sub(at).Round(time.Millisecond))
	}
	d.checkTurnedAway(r, windows)
}

// byThePod are the errors by which a pod tells a client to go away: it does not
// listen, it has not accepted the connection yet, it has but ends before it
// looks at it.
var byThePod = []string{syscall.ECONNREFUSED.Error(), syscall.ECONNRESET.Error(), io.ErrUnexpectedEOF.Error()}

// checkTurnedAway fails the test for every failure that is not of a connection
// turned away by a pod within its window.
func (d *deployment) checkTurnedAway(r load.Report, windows map[string]window) {
	d.w.Helper()
	began := time.UnixMilli(r.BeganMillis)
	turnedAway := map[load.Kind]int{}
	for _, f := range r.Failures {
		end := began.Add(time.Duration(f.AtMillis) * time.Millisecond)
		refused := slices.ContainsFunc(byThePod, func(e string) bool { return strings.Contains(f.Error, e) })
		within := slices.ContainsFunc(slices.Collect(stdmaps.Values(windows)), func(w window) bool { return w.holds(end) })
		if !refused || !within {
			d.w.Errorf("failed, and not because a pod turned it away: %+v", f)
			continue
		}
		turnedAway[f.Kind]++
	}
	n, failed := r.Acts[0].Totals()
	d.w.Logf("turned away by applications that closed too early: %v of %d operations, %d failed in all", turnedAway, n, failed)
}

// closed is when a pod said that it does not listen any more.
func (s *said) closed(pod string) (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines[pod] {
		if ns, ok := strings.CutPrefix(line, closedLine); ok {
			n, err := strconv.ParseInt(ns, 10, 64)
			return time.Unix(0, n), err
		}
	}
	return time.Time{}, fmt.Errorf("pod %s has not said that it closed: %q", pod, s.lines[pod])
}

// addresses are those of the pods there are, by name. The families of a pod are in
// slices of their own, which come one after the other.
func (d *deployment) addresses() map[string][]netip.Addr {
	d.w.Helper()
	list, err := d.w.client.CoreV1().Pods(standing).List(d.w.Context(), metav1.ListOptions{LabelSelector: appLabel + "=" + d.name})
	d.w.must(err)
	all := map[string][]netip.Addr{}
	for _, p := range list.Items {
		for _, ip := range p.Status.PodIPs {
			all[p.Name] = append(all[p.Name], netip.MustParseAddr(ip.IP))
		}
	}
	return all
}

// watchBackends looks at the maps of the entry node until it is asked for the
// times at which backends were first seen not to be active any more.
func (w *world) watchBackends() (done func() map[netip.Addr]time.Time) {
	stop, ended := make(chan struct{}), make(chan struct{})
	active, left := map[netip.Addr]bool{}, map[netip.Addr]time.Time{}
	var failed error
	go func() {
		defer close(ended)
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for failed == nil {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			failed = w.lookAtBackends(active, left)
		}
	}()
	return sync.OnceValue(func() map[netip.Addr]time.Time {
		close(stop)
		<-ended
		w.must(failed)
		return left
	})
}

// lookAtBackends notes which backends are active, and which are not any more.
func (w *world) lookAtBackends(active map[netip.Addr]bool, left map[netip.Addr]time.Time) error {
	all, err := contents(w.entry)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, b := range all.Backends {
		a := b.Addr.Addr()
		switch {
		case b.State == maps.Active:
			active[a] = true
		case active[a] && left[a].IsZero():
			left[a] = now
		}
	}
	return nil
}
