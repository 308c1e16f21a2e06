package watch

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/ebb-lb/ebb/agent/service"
)

// labelProxyName marks a Service, and the slices made from it, as the
// business of another proxy.
const labelProxyName = "service.kubernetes.io/service-proxy-name"

// convertService returns what a proxy needs of svc; false if svc is none of
// its business: an ExternalName, headless, not yet given an address, or
// another proxy's. Addresses that do not parse are skipped; the API server
// lets none through.
func convertService(svc *corev1.Service) (*service.Service, bool) {
	if ignoredBecause(svc) != "" {
		return nil, false
	}
	return &service.Service{
		Name:            service.Name{Namespace: svc.Namespace, Name: svc.Name},
		ClusterIPs:      parseAddrs(clusterIPs(svc)),
		ExternalIPs:     parseAddrs(svc.Spec.ExternalIPs),
		LoadBalancerIPs: loadBalancerIPs(svc.Status.LoadBalancer.Ingress),
		InternalPolicy:  internalPolicy(svc.Spec.InternalTrafficPolicy),
		ExternalPolicy:  externalPolicy(svc.Spec.ExternalTrafficPolicy),
		Ports:           servicePorts(svc.Spec.Ports),
	}, true
}

// ignoredBecause says why svc is not balanced; empty if it is.
func ignoredBecause(svc *corev1.Service) string {
	if _, ok := svc.Labels[labelProxyName]; ok {
		return "it has the label " + labelProxyName
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return "it is an ExternalName"
	}
	ips := clusterIPs(svc)
	switch {
	case len(ips) == 0 || ips[0] == "":
		return "it has no clusterIP"
	case ips[0] == corev1.ClusterIPNone:
		return "it is headless"
	}
	return ""
}

// clusterIPs is spec.clusterIPs; hand-written objects may have only the older
// spec.clusterIP.
func clusterIPs(svc *corev1.Service) []string {
	if len(svc.Spec.ClusterIPs) == 0 && svc.Spec.ClusterIP != "" {
		return []string{svc.Spec.ClusterIP}
	}
	return svc.Spec.ClusterIPs
}

// loadBalancerIPs leaves out ipMode Proxy: that traffic has to reach the real
// load balancer.
func loadBalancerIPs(ingress []corev1.LoadBalancerIngress) []netip.Addr {
	var addrs []netip.Addr
	for _, in := range ingress {
		if in.IPMode != nil && *in.IPMode != corev1.LoadBalancerIPModeVIP {
			continue
		}
		if addr, ok := parseAddr(in.IP); ok {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

func internalPolicy(p *corev1.ServiceInternalTrafficPolicy) service.Policy {
	if p != nil && *p == corev1.ServiceInternalTrafficPolicyLocal {
		return service.Local
	}
	return service.Cluster
}

func externalPolicy(p corev1.ServiceExternalTrafficPolicy) service.Policy {
	if p == corev1.ServiceExternalTrafficPolicyLocal {
		return service.Local
	}
	return service.Cluster
}

func servicePorts(ports []corev1.ServicePort) []service.Port {
	var converted []service.Port
	for _, p := range ports {
		proto, ok := protocol(p.Protocol)
		if !ok || p.Port < 1 || p.Port > 65535 || p.NodePort < 0 || p.NodePort > 65535 {
			continue
		}
		converted = append(converted, service.Port{
			PortKey:  service.PortKey{Name: p.Name, Proto: proto},
			Port:     uint16(p.Port),
			NodePort: uint16(p.NodePort),
		})
	}
	return converted
}

// convertSlice returns what a proxy needs of slice; false if slice belongs to
// no service, names hosts instead of addresses, or is a headless service's or
// another proxy's.
func convertSlice(slice *discoveryv1.EndpointSlice) (*service.Slice, bool) {
	owner := slice.Labels[discoveryv1.LabelServiceName]
	_, headless := slice.Labels[corev1.IsHeadlessService]
	_, foreign := slice.Labels[labelProxyName]
	if owner == "" || headless || foreign || slice.AddressType == discoveryv1.AddressTypeFQDN {
		return nil, false
	}
	converted := &service.Slice{
		Key:     service.Name{Namespace: slice.Namespace, Name: slice.Name},
		Service: service.Name{Namespace: slice.Namespace, Name: owner},
		Ports:   slicePorts(slice.Ports),
	}
	for _, ep := range slice.Endpoints {
		if e, ok := convertEndpoint(ep, slice.AddressType); ok {
			converted.Endpoints = append(converted.Endpoints, e)
		}
	}
	return converted, true
}

func slicePorts(ports []discoveryv1.EndpointPort) []service.SlicePort {
	var converted []service.SlicePort
	for _, p := range ports {
		if p.Name == nil || p.Port == nil || *p.Port < 1 || *p.Port > 65535 {
			continue
		}
		proto, ok := protocol(deref(p.Protocol, corev1.ProtocolTCP))
		if !ok {
			continue
		}
		converted = append(converted, service.SlicePort{
			PortKey: service.PortKey{Name: *p.Name, Proto: proto},
			Port:    uint16(*p.Port),
		})
	}
	return converted
}

// convertEndpoint uses the first address only: the API allows no other
// meaning for more than one. A condition that is absent is that of a healthy
// endpoint.
func convertEndpoint(ep discoveryv1.Endpoint, family discoveryv1.AddressType) (service.SliceEndpoint, bool) {
	if len(ep.Addresses) == 0 {
		return service.SliceEndpoint{}, false
	}
	addr, ok := parseAddr(ep.Addresses[0])
	if !ok || addr.Is4() != (family == discoveryv1.AddressTypeIPv4) {
		return service.SliceEndpoint{}, false
	}
	return service.SliceEndpoint{
		Addr:        addr,
		NodeName:    deref(ep.NodeName, ""),
		Ready:       deref(ep.Conditions.Ready, true),
		Serving:     deref(ep.Conditions.Serving, true),
		Terminating: deref(ep.Conditions.Terminating, false),
	}, true
}

// convertNode returns what a proxy needs of its own node.
func convertNode(node *corev1.Node) service.Node {
	converted := service.Node{Name: node.Name}
	seen := map[netip.Addr]bool{}
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for _, a := range node.Status.Addresses {
			addr, ok := parseAddr(a.Address)
			if a.Type != kind || !ok || seen[addr] {
				continue
			}
			seen[addr] = true
			converted.Addrs = append(converted.Addrs, addr)
		}
	}
	return converted
}

// protocol is false for what ebb does not balance. Absent means TCP.
func protocol(p corev1.Protocol) (service.Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return service.TCP, true
	case corev1.ProtocolUDP:
		return service.UDP, true
	}
	return 0, false
}

func parseAddrs(texts []string) []netip.Addr {
	var addrs []netip.Addr
	for _, text := range texts {
		if addr, ok := parseAddr(text); ok {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// parseAddr is false for anything that cannot stand in a packet as it is.
func parseAddr(text string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, false
	}
	return addr.Unmap(), true
}

// deref is *p, or what absence means.
func deref[T any](p *T, absent T) T {
	if p == nil {
		return absent
	}
	return *p
}
