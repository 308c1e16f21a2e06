package pathmtu

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/ebb-lb/ebb/tests/lab"
)

// service is a load balancer's, with one pod behind it.
type service struct {
	name       string
	vip4, vip6 netip.Addr
	pod        *lab.Pod
}

// addrs are its addresses, by family.
func (s service) addrs() map[string]netip.Addr {
	return map[string]netip.Addr{"IPv4": s.vip4, "IPv6": s.vip6}
}

func nodeManifest(n *lab.Node) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Node
metadata: {name: %s}
status: {addresses: [{type: InternalIP, address: %s}, {type: InternalIP, address: "%s"}]}
`, n.Name(), n.Addr4, n.Addr6)
}

// manifest is the service, with cluster addresses that differ by i, and its slices.
func (s service) manifest(i int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `---
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: far}
spec:
  type: LoadBalancer
  allocateLoadBalancerNodePorts: false
  clusterIP: 10.96.0.%d
  clusterIPs: [10.96.0.%d, "fd00:10:96::%d"]
  ipFamilies: [IPv4, IPv6]
  ports:
`, s.name, i, i, i)
	for name, p := range ports() {
		fmt.Fprintf(&b, "  - {name: %s, protocol: %s, port: %d}\n", name, p.proto, p.service)
	}
	fmt.Fprintf(&b, "status: {loadBalancer: {ingress: [{ip: %s, ipMode: VIP}, {ip: %q, ipMode: VIP}]}}\n", s.vip4, s.vip6)
	for family, addr := range map[string]netip.Addr{"IPv4": s.pod.Addr4, "IPv6": s.pod.Addr6} {
		fmt.Fprintf(&b, `---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %s-%s, namespace: far, labels: {kubernetes.io/service-name: %s}}
addressType: %s
endpoints: [{addresses: [%q], nodeName: %s}]
ports:
`, s.name, strings.ToLower(family), s.name, family, addr, s.pod.Node.Name())
		for name, p := range ports() {
			fmt.Fprintf(&b, "- {name: %s, protocol: %s, port: %d}\n", name, p.proto, p.pod)
		}
	}
	return b.String()
}
