package podlinks

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

const httpPort, echoPort = 80, 53

// service is one Service with addresses of both families.
type service struct {
	name     string
	cluster4 netip.Addr
	cluster6 netip.Addr
	vip4     netip.Addr // invalid: it has no load balancer
	vip6     netip.Addr
	local    bool // its externalTrafficPolicy is Local
}

// newService makes addresses of a number.
func newService(name string, n int) service {
	return service{
		name:     name,
		cluster4: netip.MustParseAddr(fmt.Sprintf("10.96.0.%d", n)),
		cluster6: netip.MustParseAddr(fmt.Sprintf("fd00:10:96::%d", n)),
	}
}

func (s service) balanced(n int) service {
	s.vip4 = netip.MustParseAddr(fmt.Sprintf("203.0.113.%d", n))
	s.vip6 = netip.MustParseAddr(fmt.Sprintf("2001:db8:113::%d", n))
	return s
}

// addrs are all addresses at which pods may dial s.
func (s service) addrs() []netip.Addr {
	addrs := []netip.Addr{s.cluster4, s.cluster6}
	if s.vip4.IsValid() {
		addrs = append(addrs, s.vip4, s.vip6)
	}
	return addrs
}

func (s service) manifest() string {
	kind, policy, status := "ClusterIP", "", ""
	if s.vip4.IsValid() {
		kind = "LoadBalancer"
		policy = "  externalTrafficPolicy: Cluster\n"
		status = fmt.Sprintf("status: {loadBalancer: {ingress: [{ip: %s, ipMode: VIP}, {ip: %q, ipMode: VIP}]}}\n", s.vip4, s.vip6)
	}
	if s.local {
		policy = "  externalTrafficPolicy: Local\n  healthCheckNodePort: 32080\n"
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %s, namespace: shop}
spec:
  type: %s
  clusterIP: %s
  clusterIPs: [%s, %q]
  ipFamilies: [IPv4, IPv6]
  ports:
  - {name: http, protocol: TCP, port: %d}
  - {name: echo, protocol: UDP, port: %d}
%s%s`, s.name, kind, s.cluster4, s.cluster4, s.cluster6, httpPort, echoPort, policy, status)
}

func nodeManifest(n *lab.Node) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Node
metadata: {name: %s}
status: {addresses: [{type: InternalIP, address: %s}, {type: InternalIP, address: %q}]}
`, n.Name(), n.Addr4, n.Addr6)
}

func sliceManifest(service, family string, pods []*lab.Pod, addr func(*lab.Pod) netip.Addr) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %s-%s, namespace: shop, labels: {kubernetes.io/service-name: %s}}
addressType: %s
ports: [{name: http, protocol: TCP, port: %d}, {name: echo, protocol: UDP, port: %d}]
endpoints:
`, service, strings.ToLower(family), service, family, pod.HTTPPort, pod.UDPPort)
	for _, p := range pods {
		fmt.Fprintf(&b, "- {addresses: [%q], nodeName: %s}\n", addr(p), p.Node.Name())
	}
	return b.String()
}

// publish makes these pods the endpoints of s.
func (w *world) publish(s service, pods ...*lab.Pod) {
	w.Helper()
	w.write(s.name+"-endpoints.yaml",
		sliceManifest(s.name, "IPv4", pods, func(p *lab.Pod) netip.Addr { return p.Addr4 })+"---\n"+
			sliceManifest(s.name, "IPv6", pods, func(p *lab.Pod) netip.Addr { return p.Addr6 }))
}

// write replaces a manifest in one step.
func (w *world) write(name, text string) {
	w.Helper()
	scratch := filepath.Join(w.manifests, "."+name)
	if err := os.WriteFile(scratch, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
	if err := os.Rename(scratch, filepath.Join(w.manifests, name)); err != nil {
		w.Fatal(err)
	}
}
