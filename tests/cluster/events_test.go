package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// takenPort is a health check node port that somebody else has.
const takenPort = 32767

// With the rights of the manifest, whoever looks at the Service learns why
// balancers are not answered; and they are, as soon as that can be done.
func TestAHealthCheckNodePortThatIsTakenIsAnEventOnTheService(t *testing.T) {
	w := setup(t)
	taken := w.take(takenPort)
	s := w.service(func(s *corev1.Service) {
		loadBalancer(s)
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		s.Spec.HealthCheckNodePort = takenPort
	})
	w.must(await(t.Context(), patience, func() error { return w.told(s.name, w.entry.Name()) }))
	w.must(taken.Close())
	url := fmt.Sprintf("http://%s/", netip.AddrPortFrom(w.entry.Addr4, takenPort))
	w.must(await(t.Context(), patience, func() error {
		headers, _, err := get(t.Context(), w.entry.NS, url)
		if got := headers.Get("X-Load-Balancing-Endpoint-Weight"); err == nil && got != "2" {
			err = fmt.Errorf("weight %q, want that of the two pods of the node", got)
		}
		return err
	}))
}

// take listens on a port of the entry node, in the way of its agent.
func (w *world) take(port int) io.Closer {
	w.Helper()
	var l net.Listener
	w.must(w.entry.Do(func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprint("0.0.0.0:", port))
		return err
	}))
	srv := &http.Server{Handler: http.NotFoundHandler()}
	go srv.Serve(l)
	w.Cleanup(func() { srv.Close() })
	return srv
}

// told reports whether there is an Event that tells about the port on this node.
func (w *world) told(service, node string) error {
	list, err := w.client.EventsV1().Events(standing).List(context.WithoutCancel(w.Context()), metav1.ListOptions{})
	if err != nil {
		return err
	}
	var others []string
	for _, e := range list.Items {
		if e.Regarding.Kind == "Service" && e.Regarding.Name == service && e.Type == corev1.EventTypeWarning &&
			e.Reason == "FailedToStartServiceHealthcheck" && strings.Contains(e.Note, node) {
			return nil
		}
		others = append(others, e.Regarding.Name+": "+e.Reason)
	}
	return fmt.Errorf("no such event, only %v", others)
}
