package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/ebb-lb/ebb/tests/lab"
)

const (
	servicePort = 80
	// maxServices is how many the maps of an agent hold by default, pods included.
	maxServices = 16_000
	// clusterCIDR contains the client and every source of newFlows: kube-proxy
	// masquerades what connects to a ClusterIP from elsewhere, and one address of the
	// node has too few ports for that many flows.
	clusterCIDR = "198.0.0.0/8"
	serviceCIDR = "10.96.0.0/16"
)

// service is a Service with a ClusterIP and the same port of some protocols.
type service struct {
	name      string
	addr      netip.Addr
	protocols []string
	endpoints []endpoint
}

type endpoint struct {
	addr netip.Addr
	node string
}

// clusterServices returns the Services of w. The one under test is in the middle of
// others, whose pods are on other nodes.
func clusterServices(w *world) []service {
	all := make([]service, w.services)
	for i := range all {
		all[i] = service{name: serviceName(i), addr: serviceAddr(i), protocols: []string{"tcp"}}
		for n := range podCount {
			all[i].endpoints = append(all[i].endpoints, endpoint{addrAfter("10.245.0.0", podCount*i+n+1), "elsewhere"})
		}
	}
	all[w.services/2] = testedService(w)
	return all
}

// testedService is the Service whose endpoints are the pods of w.
func testedService(w *world) service {
	i := w.services / 2
	s := service{name: serviceName(i), addr: serviceAddr(i), protocols: []string{"tcp", "udp"}}
	for _, p := range w.pods {
		s.endpoints = append(s.endpoints, endpoint{p.Addr4, p.Node.Name()})
	}
	return s
}

func serviceName(i int) string { return fmt.Sprintf("service-%d", i) }

func serviceAddr(i int) netip.Addr { return addrAfter("10.96.0.0", i+1) }

// addrAfter returns the n-th address after base.
func addrAfter(base string, n int) netip.Addr {
	b := netip.MustParseAddr(base).As4()
	for i := 3; n > 0; i-- {
		n += int(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	return netip.AddrFrom4(b)
}

// manifests returns the objects of a cluster as YAML.
func manifests(node *lab.Node, services []service) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: v1
kind: Node
metadata: {name: %s}
status: {addresses: [{type: InternalIP, address: %s}]}
`, node.Name(), node.Addr4)
	for _, s := range services {
		var servicePorts, endpointPorts, endpoints []string
		for _, proto := range s.protocols {
			proto = strings.ToUpper(proto)
			servicePorts = append(servicePorts, fmt.Sprintf("{name: %s, protocol: %s, port: %d, targetPort: %d}",
				strings.ToLower(proto), proto, servicePort, podPort))
			endpointPorts = append(endpointPorts, fmt.Sprintf("{name: %s, protocol: %s, port: %d}", strings.ToLower(proto), proto, podPort))
		}
		for _, e := range s.endpoints {
			endpoints = append(endpoints, fmt.Sprintf("{addresses: [%s], nodeName: %s}", e.addr, e.node))
		}
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: bench}
spec: {type: ClusterIP, clusterIP: %[2]s, clusterIPs: [%[2]s], ipFamilies: [IPv4], ports: [%[3]s]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-1, namespace: bench, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [%[4]s]
endpoints: [%[5]s]
`, s.name, s.addr, strings.Join(servicePorts, ", "), strings.Join(endpointPorts, ", "), strings.Join(endpoints, ", "))
	}
	return b.String()
}
