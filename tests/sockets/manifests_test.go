package sockets

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

const (
	httpPort, echoPort         = 80, 5353
	httpNodePort, echoNodePort = 30080, 30053
	externalIP                 = "198.51.100.200"
)

// webService is a dual-stack load balancer with everything a client may dial.
func webService() string {
	vip4, vip6 := lab.DefaultVIPs()
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.80
  clusterIPs: [10.96.0.80, "fd00:10:96::80"]
  ipFamilies: [IPv4, IPv6]
  externalIPs: [%s]
  ports:
  - {name: http, protocol: TCP, port: %d, nodePort: %d}
  - {name: echo, protocol: UDP, port: %d, nodePort: %d}
status: {loadBalancer: {ingress: [{ip: %s, ipMode: VIP}, {ip: "%s", ipMode: VIP}]}}
`, externalIP, httpPort, httpNodePort, echoPort, echoNodePort, vip4, vip6)
}

// service is one with a ClusterIP of each family that end in n, and more of a spec.
func service(name string, n int, meta, spec string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %s, namespace: shop%s}
spec:
  clusterIP: 10.96.0.%d
  clusterIPs: [10.96.0.%d, "fd00:10:96::%d"]
  ipFamilies: [IPv4, IPv6]
  ports:
  - {name: http, protocol: TCP, port: %d}
  - {name: echo, protocol: UDP, port: %d}
%s`, name, meta, n, n, n, httpPort, echoPort, spec)
}

// publish makes these pods the endpoints of the service; a name that ends in "-"
// is terminating and serves no more.
func (w *world) publish(service string, pods ...string) {
	w.Helper()
	w.write(service+"-endpoints.yaml", w.slice(service, "IPv4", pods)+"---\n"+w.slice(service, "IPv6", pods))
}

func (w *world) slice(service, family string, pods []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %s-%s, namespace: shop, labels: {kubernetes.io/service-name: %s}}
addressType: %s
ports: [{name: http, protocol: TCP, port: %d}, {name: echo, protocol: UDP, port: %d}]
endpoints:
`, service, strings.ToLower(family), service, family, pod.HTTPPort, pod.UDPPort)
	for _, name := range pods {
		conditions := "{}"
		if strings.HasSuffix(name, "-") {
			conditions = "{ready: false, serving: true, terminating: true}"
		}
		p := w.pods[strings.TrimSuffix(name, "-")]
		addr := netip.Addr(p.Addr6)
		if family == "IPv4" {
			addr = p.Addr4
		}
		fmt.Fprintf(&b, "- {addresses: [%q], nodeName: %s, conditions: %s}\n", addr, p.Node.Name(), conditions)
	}
	if len(pods) == 0 {
		return strings.TrimSuffix(b.String(), "endpoints:\n") + "endpoints: []\n"
	}
	return b.String()
}
