package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ebb-lb/ebb/maps"
)

// nobodysPort is no port of any service.
const nobodysPort = 4711

// secondSYN is longer than TCP waits for an answer to its first SYN. Between
// namespaces the answer comes while the client's socket is locked; over IPv6
// Linux takes only the next one.
const secondSYN = 3 * time.Second

// refuses waits until a connection to target is refused.
func (w *world) refuses(what string, target netip.AddrPort) {
	w.Helper()
	w.check(what, await(w.Context(), patience, func() error {
		if err := w.knock(target, secondSYN); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("%s: %v, want it refused", target, err)
		}
		return nil
	}))
}

// ignores waits until there is no answer at all to who dials target.
func (w *world) ignores(what string, target netip.AddrPort) {
	w.Helper()
	w.check(what, await(w.Context(), patience, func() error {
		err := w.knock(target, silence)
		if failure := net.Error(nil); !errors.As(err, &failure) || !failure.Timeout() {
			return fmt.Errorf("%s: %v, want silence", target, err)
		}
		return nil
	}))
}

func (w *world) knock(target netip.AddrPort, bound time.Duration) error {
	ctx, cancel := context.WithTimeout(w.Context(), bound)
	defer cancel()
	conn, err := w.lab.Client.Dial(ctx, "tcp", target.String())
	if err == nil {
		conn.Close()
	}
	return err
}

func TestOtherPortsOfAServiceAreRefusedAndAddressesGivenBackAreSilent(t *testing.T) {
	w := setup(t)
	s := w.service(nil)
	all := addrs(s.cluster4, s.cluster6)
	w.leadsTo("cluster IP", httpPort, all, a1, a2, b1)
	for _, a := range all {
		w.refuses("another port", netip.AddrPortFrom(a, nobodysPort))
	}
	s.delete()
	for _, a := range all {
		w.ignores("deleted", netip.AddrPortFrom(a, httpPort))
		w.ignores("deleted, another port", netip.AddrPortFrom(a, nobodysPort))
	}
	c, err := contents(w.entry)
	w.must(err)
	for _, a := range all {
		if f := c.Addresses[a]; f&maps.AddressClusterIP != 0 {
			t.Errorf("%s is %s after its service was deleted", a, f)
		}
	}
}

// The API server makes a ServiceCIDR of its flags; others may follow.
func TestRangesOfServicesAreThoseOfTheAPIServer(t *testing.T) {
	w := setup(t)
	w.ranges("as the API server is started", serviceRange4, serviceRange6)
	cidrs := w.client.NetworkingV1().ServiceCIDRs()
	_, err := cidrs.Create(t.Context(), &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: "extra"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{extraRange.String()}},
	}, metav1.CreateOptions{})
	w.must(err)
	w.ranges("one more", serviceRange4, serviceRange6, extraRange)
	w.must(cidrs.Delete(t.Context(), "extra", metav1.DeleteOptions{}))
	w.ranges("and one less", serviceRange4, serviceRange6)
}

// ranges waits until exactly these are in the maps, and within the span that
// the programs compare with.
func (w *world) ranges(what string, want ...netip.Prefix) {
	w.Helper()
	w.check(what, await(w.Context(), patience, func() error {
		c, err := contents(w.entry)
		if err != nil {
			return err
		}
		for _, p := range want {
			span := c.Runtime.Services6
			if p.Addr().Is4() {
				span = c.Runtime.Services4
			}
			if _, known := c.ServiceCIDRs[p]; !known || span.IsValid() && !span.Contains(p.Addr()) {
				return fmt.Errorf("%s is not among %v, or not in %s", p, c.ServiceCIDRs, span)
			}
		}
		if len(c.ServiceCIDRs) != len(want) {
			return fmt.Errorf("ranges %v, want %v", c.ServiceCIDRs, want)
		}
		return nil
	}))
}
