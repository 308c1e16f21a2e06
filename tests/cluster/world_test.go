package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/ebb-lb/ebb/tests/lab"
)

// world is the shared cluster as one test sees it.
type world struct {
	*testing.T
	*cluster
}

// fewest is how many operations of each kind end during any test, at least.
const fewest = 3

// setup hands out the cluster. When the test is over, nothing may have failed of
// the load that went on meanwhile, and no part of the cluster may be gone.
func setup(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, cluster: getShared(t)}
	w.must(w.load.begin(t.Name()))
	t.Cleanup(func() {
		w.must(w.load.awaitMore(afterwards(t), t.Name(), fewest))
		ended, failed := w.load.act(t.Name())
		t.Logf("beside it: %v operations, %d failed", ended, len(failed))
		for _, f := range failed {
			t.Errorf("failed beside it: %+v", f)
		}
		w.must(w.load.begin("between tests"))
		w.must(w.plane.Alive())
		for _, a := range w.agents {
			select {
			case <-a.Done():
				t.Error(a.failure())
			default:
			}
		}
	})
	return w
}

// afterwards is a context for cleaning up.
func afterwards(t *testing.T) context.Context { return context.WithoutCancel(t.Context()) }

// must fails the test at once if there is an error.
func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// check fails the test if there is an error, and lets it go on.
func (w *world) check(what string, err error) {
	w.Helper()
	if err != nil {
		w.Errorf("%s: %v", what, err)
	}
}

// numbers are those of services so far; 0 is the canary's.
var numbers atomic.Int32

// addressed is how many services have addresses of their own at a time.
const addressed = 99

// service is a Service of the standing pods that belongs to one test.
type service struct {
	numbered
	w    *world
	name string
}

// service creates a Service, changed as the test wants, and deletes it when the
// test is over.
func (w *world) service(change func(*corev1.Service)) *service {
	w.Helper()
	n := int(numbers.Add(1))
	s := &service{numbered: addressesOf((n-1)%addressed + 1), w: w, name: fmt.Sprint("service-", n)}
	spec := serviceNamed(s.name, s.numbered)
	if change != nil {
		change(spec)
	}
	_, err := w.client.CoreV1().Services(standing).Create(w.Context(), spec, metav1.CreateOptions{})
	w.must(err)
	w.Cleanup(func() { s.delete() })
	return s
}

// change changes the Service.
func (s *service) change(by func(*corev1.Service)) {
	s.w.Helper()
	services := s.w.client.CoreV1().Services(standing)
	s.w.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		now, err := services.Get(s.w.Context(), s.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		by(now)
		_, err = services.Update(s.w.Context(), now, metav1.UpdateOptions{})
		return err
	}))
}

// get returns the Service as it is.
func (s *service) get() *corev1.Service {
	s.w.Helper()
	now, err := s.w.client.CoreV1().Services(standing).Get(s.w.Context(), s.name, metav1.GetOptions{})
	s.w.must(err)
	return now
}

// ingress makes these the addresses of the load balancer.
func (s *service) ingress(all []corev1.LoadBalancerIngress) {
	s.w.Helper()
	services := s.w.client.CoreV1().Services(standing)
	s.w.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		now := s.get()
		now.Status.LoadBalancer.Ingress = all
		_, err := services.UpdateStatus(s.w.Context(), now, metav1.UpdateOptions{})
		return err
	}))
}

// delete deletes the Service; it may have been deleted before.
func (s *service) delete() {
	s.w.Helper()
	err := s.w.client.CoreV1().Services(standing).Delete(afterwards(s.w.T), s.name, metav1.DeleteOptions{})
	if !apierrors.IsNotFound(err) {
		s.w.must(err)
	}
}

// leadsTo waits until exactly these pods answer at each of the addresses.
func (w *world) leadsTo(what string, port uint16, addrs []netip.Addr, pods ...string) {
	w.Helper()
	for _, a := range addrs {
		w.check(what, w.answers(w.Context(), netip.AddrPortFrom(a, port), pods...))
	}
}

// nobody waits until nobody answers at any of the addresses.
func (w *world) nobody(what string, port uint16, addrs ...netip.Addr) {
	w.Helper()
	for _, a := range addrs {
		w.check(what, w.silent(w.Context(), ask, netip.AddrPortFrom(a, port)))
	}
}

// clientAddrs are those of the machine that load comes from.
func (w *world) clientAddrs() (v4, v6 netip.Addr) { return lab.ClientAddrs() }

// unknown reports whether the agent has nothing of a service in the maps.
func (w *world) unknown(name string) error {
	all, err := contents(w.entry)
	if err != nil {
		return err
	}
	for id, p := range all.ServicePorts {
		if p.Namespace == standing && p.Service == name {
			for f, s := range all.Frontends {
				if s.ServicePort == id {
					return fmt.Errorf("frontend %s leads to %s", f, p)
				}
			}
		}
	}
	return nil
}
