package cluster

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ebb-lb/ebb/tests/lab"
)

// visitor is a pod of a node that no Service leads to.
func (w *world) visitor(n *lab.Node) *lab.NS {
	w.Helper()
	p, err := n.AddPod("visitor-" + n.Name())
	w.must(err)
	w.Cleanup(func() { w.must(p.Remove()) })
	return p.NS
}

// origins are a pod on each node, and each node itself.
func (w *world) origins() []*lab.NS {
	w.Helper()
	return []*lab.NS{w.visitor(w.entry), w.visitor(w.other), w.entry.NS, w.other.NS}
}

// There is no kube-proxy on these nodes.
func TestPodsAndNodesReachServices(t *testing.T) {
	w := setup(t)
	s := w.service(loadBalancer)
	at := s.numbered
	s.change(func(s *corev1.Service) { s.Spec.ExternalIPs = []string{at.external4.String(), at.external6.String()} })
	s.ingress(ingress(corev1.LoadBalancerIPModeVIP, s.lb4, s.lb6))
	ports := s.get().Spec.Ports
	targets := map[uint16][]netip.Addr{
		httpPort:                  addrs(s.cluster4, s.cluster6, s.lb4, s.lb6, s.external4, s.external6),
		uint16(ports[0].NodePort): addrs(w.entry.Addr4, w.entry.Addr6, w.other.Addr4, w.other.Addr6),
	}
	datagrams := map[uint16][]netip.Addr{
		echoPort:                  targets[httpPort],
		uint16(ports[1].NodePort): targets[uint16(ports[0].NodePort)],
	}
	for _, from := range w.origins() {
		for port, all := range targets {
			for _, a := range all {
				w.check("TCP", answeredFrom(t.Context(), from, ask, netip.AddrPortFrom(a, port), []string{a1, a2, b1}, nil))
			}
		}
		for port, all := range datagrams {
			for _, a := range all {
				w.check("UDP", answeredFrom(t.Context(), from, askUDP, netip.AddrPortFrom(a, port), []string{a1, a2, b1}, nil))
			}
		}
	}
}

// Its name is in the answer, and its own address is that of the client.
func TestAPodReachesItselfThroughItsService(t *testing.T) {
	w := setup(t)
	s := w.service(func(s *corev1.Service) { s.Spec.Selector = map[string]string{nameLabel: b1} })
	itself, err := w.namespaceOf(b1)
	w.must(err)
	for _, a := range addrs(s.cluster4, s.cluster6) {
		w.check("TCP", answeredFrom(t.Context(), itself, ask, netip.AddrPortFrom(a, httpPort), []string{b1}, nil))
		w.check("UDP", answeredFrom(t.Context(), itself, askUDP, netip.AddrPortFrom(a, echoPort), []string{b1}, nil))
	}
}

// namespaceOf returns where a pod of the kubelets runs.
func (w *world) namespaceOf(name string) (*lab.NS, error) {
	for _, k := range w.kubelets {
		if ns := k.Namespace(standing, name); ns != nil {
			return ns, nil
		}
	}
	return nil, fmt.Errorf("no node runs pod %s", name)
}

// The API server is not in the cluster's network; what runs on nodes finds it by
// the ClusterIP of default/kubernetes.
func TestPodsAndNodesReachTheAPIServerByItsService(t *testing.T) {
	w := setup(t)
	server := serviceRange4.Masked().Addr().Next() // it has one family
	for _, from := range w.origins() {
		w.must(await(t.Context(), patience, func() error { return w.version(t.Context(), from, server) }))
	}
}

// version asks an API server for its version.
func (w *world) version(ctx context.Context, from *lab.NS, server netip.Addr) error {
	cfg, err := w.plane.Admin()
	if err != nil {
		return err
	}
	cfg = rest.CopyConfig(cfg)
	cfg.Host = "https://" + netip.AddrPortFrom(server, 443).String()
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return from.Dial(ctx, network, addr)
	}
	cfg.Timeout = askBound
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	defer client.RESTClient().(*rest.RESTClient).Client.CloseIdleConnections()
	if _, err := client.ServerVersion(); err != nil {
		return fmt.Errorf("from %s: %w", from.Name(), err)
	}
	return nil
}

// Connections and flows between pods, while all pods of a Service are replaced.
func TestARolloutLosesNothingOfWhatPodsDo(t *testing.T) {
	w := setup(t)
	d := w.deploy(style{kind: patient, surge: one, unavailable: none})
	http, udp := targets(addrs(d.svc.cluster4, d.svc.cluster6), httpPort, echoPort)
	for _, from := range []*lab.NS{w.visitor(w.entry), w.visitor(w.other), w.other.NS} {
		load, err := startClient(from, http, udp, d.name)
		w.must(err)
		defer func() {
			r, err := load.finish(t.Context())
			w.check("the end of the load", err)
			for _, a := range r.Acts {
				n, failed := a.Totals()
				t.Logf("%s: %d operations, %d failed", from.Name(), n, failed)
			}
			for _, f := range r.Failures {
				t.Errorf("%s: failed: %+v", from.Name(), f)
			}
		}()
		w.must(load.awaitMore(t.Context(), d.name, fewest))
	}
	d.roll()
	d.awaitRolledOut()
}
