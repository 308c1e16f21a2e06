package watch

import (
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	netutils "k8s.io/utils/net"

	"github.com/ebb-lb/ebb/agent/service"
)

// labelProxyName says which proxy a Service is the business of.
const labelProxyName = "service.kubernetes.io/service-proxy-name"

// annotationEastWest says how what begins on a node reaches a Service;
// eastWestPacket is the only value that is not the default.
const (
	annotationEastWest = "ebb-lb.dev/east-west"
	eastWestPacket     = "packet"
)

// The API server lets nothing else through; a Service written before it
// checked, or by something that is no API server, gets the default.
const (
	defaultAffinityTimeout = corev1.DefaultClientIPServiceAffinitySeconds
	maxAffinityTimeout     = 86400
)

// convertService returns what the proxy proxyName needs of svc; false if svc is
// none of its business: an ExternalName, headless, not yet given an address, or
// another proxy's. Addresses that do not parse are skipped; the API server
// lets none through.
func convertService(svc *corev1.Service, proxyName string) (*service.Service, bool) {
	if ignoredBecause(svc, proxyName) != "" {
		return nil, false
	}
	return &service.Service{
		Name:            service.Name{Namespace: svc.Namespace, Name: svc.Name},
		ClusterIPs:      parseAddrs(clusterIPs(svc)),
		ExternalIPs:     parseAddrs(svc.Spec.ExternalIPs),
		LoadBalancerIPs: loadBalancerIPs(svc.Status.LoadBalancer.Ingress),

		LoadBalancerSourceRanges: sourceRanges(svc.Spec.LoadBalancerSourceRanges),

		InternalPolicy:      internalPolicy(svc.Spec.InternalTrafficPolicy),
		ExternalPolicy:      externalPolicy(svc.Spec.ExternalTrafficPolicy),
		AffinityTimeout:     affinityTimeout(svc.Spec),
		HealthCheckNodePort: healthCheckNodePort(svc.Spec),
		ByPacket:            svc.Annotations[annotationEastWest] == eastWestPacket,
		Ports:               servicePorts(svc.Spec.Ports),
	}, true
}

// ignoredBecause says why svc is not balanced by the proxy proxyName; empty if
// it is.
func ignoredBecause(svc *corev1.Service, proxyName string) string {
	label, labelled := svc.Labels[labelProxyName]
	switch {
	case proxyName == "" && labelled:
		return "it has the label " + labelProxyName
	case label != proxyName:
		return "it does not have the label " + labelProxyName + "=" + proxyName
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

// sourceRanges keeps a range that does not parse as one that nobody is in:
// to skip it could open what was meant to be closed.
func sourceRanges(texts []string) []netip.Prefix {
	var ranges []netip.Prefix
	for _, text := range texts {
		r, _ := parsePrefix(text)
		ranges = append(ranges, r)
	}
	return ranges
}

func affinityTimeout(spec corev1.ServiceSpec) time.Duration {
	if spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	seconds := int32(defaultAffinityTimeout)
	if c := spec.SessionAffinityConfig; c != nil && c.ClientIP != nil {
		seconds = deref(c.ClientIP.TimeoutSeconds, seconds)
	}
	if seconds < 1 || seconds > maxAffinityTimeout {
		seconds = defaultAffinityTimeout
	}
	return time.Duration(seconds) * time.Second
}

// healthCheckNodePort is 0 where the API gives the field no meaning.
func healthCheckNodePort(spec corev1.ServiceSpec) uint16 {
	local := spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	p := spec.HealthCheckNodePort
	if spec.Type != corev1.ServiceTypeLoadBalancer || !local || p < 0 || p > 65535 {
		return 0
	}
	return uint16(p)
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

// protocol is false for what ebb does not balance. Absent means TCP.
func protocol(p corev1.Protocol) (service.Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return service.TCP, true
	case corev1.ProtocolUDP:
		return service.UDP, true
	case corev1.ProtocolSCTP:
		return service.SCTP, true
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

// parseAddr is false for anything that cannot stand in a packet as it is. Leading zeros, which
// API servers before Kubernetes 1.36 store, are no octal numbers: kube-proxy reads
// them so, by the same function.
func parseAddr(text string) (netip.Addr, bool) {
	addr, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(text))
	return addr.Unmap(), ok
}

// parsePrefix forgives spaces around the range, leading zeros and bits beyond its length.
func parsePrefix(text string) (netip.Prefix, bool) {
	text = strings.TrimSpace(text)
	addr, length, _ := strings.Cut(text, "/")
	a, ok := parseAddr(addr)
	if !ok {
		return netip.Prefix{}, false
	}
	if !strings.Contains(addr, ":") {
		text = a.String() + "/" + length
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, false
	}
	p = service.UnmapPrefix(p)
	return p.Masked(), p.IsValid()
}

func parsePrefixes(texts []string) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, text := range texts {
		if p, ok := parsePrefix(text); ok {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes
}

// deref is *p, or what absence means.
func deref[T any](p *T, absent T) T {
	if p == nil {
		return absent
	}
	return *p
}
