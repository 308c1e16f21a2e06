package sockets

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
)

// dialled is where service() is, by TCP over IPv4.
func dialled(n int) string { return fmt.Sprintf("10.96.0.%d:%d", n, httpPort) }

// refuses waits until dialling fails for this reason, which must not take long.
func (w *world) refuses(ns *lab.NS, network, addr string, reason error) {
	w.Helper()
	w.await(fmt.Sprintf("%s of %s %s", reason, network, addr), func() error {
		_, err := answering(w.Context(), ns, network, addr)
		if !errors.Is(err, reason) {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
}

// reaches waits until these pods and no others answer.
func (w *world) reaches(ns *lab.NS, network, addr string, pods ...string) {
	w.Helper()
	w.await(fmt.Sprintf("%v at %s %s", pods, network, addr), func() error {
		heard := make(map[string]bool)
		for range 20 * len(pods) {
			name, err := answering(w.Context(), ns, network, addr)
			if err != nil {
				return err
			}
			heard[name] = true
		}
		for _, p := range pods {
			if !heard[p] {
				return fmt.Errorf("%s is not among %v", p, heard)
			}
		}
		if len(heard) != len(pods) {
			return fmt.Errorf("%v answer", heard)
		}
		return nil
	})
}

func TestWithoutEndpointsDiallingIsRefusedAtOnce(t *testing.T) {
	w := newWorld(t)
	w.publish("web")
	for origin, ns := range w.origins() {
		for name, addr := range frontends() {
			t.Run(origin+" to "+name, func(t *testing.T) {
				w := w.in(t)
				w.refuses(ns, "tcp", netip.AddrPortFrom(addr, httpPort).String(), unix.ECONNREFUSED)
				w.refuses(ns, "udp", netip.AddrPortFrom(addr, echoPort).String(), unix.ECONNREFUSED)
			})
		}
	}
}

func TestInternalPolicyLocalReachesPodsOfTheNodeOnly(t *testing.T) {
	w := newWorld(t)
	w.write("near.yaml", service("near", 81, "", "  internalTrafficPolicy: Local\n"))
	w.publish("near", "web-2", "web-3")
	w.sync("near", dialled(81)+"/TCP")
	for origin, ns := range w.origins() {
		t.Run(origin, func(t *testing.T) { w.in(t).reaches(ns, "tcp", dialled(81), "web-2") })
	}
	w.publish("near", "web-3")
	for origin, ns := range w.origins() {
		t.Run(origin+" without one", func(t *testing.T) { w.in(t).refuses(ns, "tcp", dialled(81), unix.EHOSTUNREACH) })
	}
}

func TestExternalPolicyLocalIsNotForTheNodeItself(t *testing.T) {
	w := newWorld(t)
	w.write("web.yaml", strings.Replace(webService(), "type: LoadBalancer", "type: LoadBalancer\n  externalTrafficPolicy: Local", 1))
	w.publish("web", "web-3")
	vip, _ := lab.DefaultVIPs()
	for origin, ns := range w.origins() {
		t.Run(origin, func(t *testing.T) {
			w := w.in(t)
			w.reaches(ns, "tcp", netip.AddrPortFrom(vip, httpPort).String(), "web-3")
			w.reaches(ns, "tcp", netip.AddrPortFrom(w.node.Addr4, httpNodePort).String(), "web-3")
		})
	}
}

func TestAClientKeepsItsBackendAlsoBeforeItsAddressIsKnown(t *testing.T) {
	w := newWorld(t)
	w.write("sticky.yaml", service("sticky", 82, "", "  sessionAffinity: ClientIP\n"))
	w.publish("sticky", "web-1", "web-2", "web-3")
	w.sync("sticky", dialled(82)+"/TCP")
	for origin, ns := range w.origins() {
		t.Run(origin, func(t *testing.T) {
			w := w.in(t)
			first, err := answering(t.Context(), ns, "tcp", dialled(82))
			if err != nil {
				t.Fatal(err)
			}
			w.reaches(ns, "tcp", dialled(82), first)
		})
	}
}

func TestWithoutAffinityConnectionsAreSpread(t *testing.T) {
	w := newWorld(t)
	for origin, ns := range w.origins() {
		t.Run(origin, func(t *testing.T) {
			w := w.in(t)
			w.reaches(ns, "tcp", dialled(80), "web-1", "web-2", "web-3")
			w.reaches(ns, "udp", fmt.Sprint("10.96.0.80:", echoPort), "web-1", "web-2", "web-3")
		})
	}
}

// restrict makes the load balancer's address that of these clients only.
func (w *world) restrict(ranges string) {
	w.write("web.yaml", strings.Replace(webService(), "type: LoadBalancer", "type: LoadBalancer\n  loadBalancerSourceRanges: ["+ranges+"]", 1))
}

func TestSourceRangesLetTheNodeInByItsAddress(t *testing.T) {
	w := newWorld(t)
	vip, _ := lab.DefaultVIPs()
	at := netip.AddrPortFrom(vip, httpPort).String()
	w.restrict("203.0.113.0/24")
	w.refuses(w.node.NS, "tcp", at, unix.EHOSTUNREACH)
	w.restrict(w.node.Addr4.String() + "/32")
	w.reaches(w.node.NS, "tcp", at, "web-1", "web-2", "web-3")
}

// The address of a pod is not known yet when it dials, but where pods are is.
func TestSourceRangesLetPodsInOrOutByTheirCommonRange(t *testing.T) {
	w := newWorld(t, "--cluster-cidr", "10.244.0.0/16")
	vip, _ := lab.DefaultVIPs()
	at := netip.AddrPortFrom(vip, httpPort).String()
	w.restrict("203.0.113.0/24")
	w.refuses(w.client.NS, "tcp", at, unix.EHOSTUNREACH)
	w.restrict("203.0.113.0/24, 10.0.0.0/8")
	w.reaches(w.client.NS, "tcp", at, "web-1", "web-2", "web-3")
}
