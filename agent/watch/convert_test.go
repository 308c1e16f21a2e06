package watch

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ebb-lb/ebb/agent/service"
)

var byValue = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func addrs(texts ...string) []netip.Addr {
	var got []netip.Addr
	for _, t := range texts {
		got = append(got, netip.MustParseAddr(t))
	}
	return got
}

func prefixes(texts ...string) []netip.Prefix {
	var got []netip.Prefix
	for _, t := range texts {
		got = append(got, netip.MustParsePrefix(t))
	}
	return got
}

// aService is shop/web with one port; each test changes what it is about.
func aService(change func(*corev1.Service)) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: corev1.ServiceSpec{
			ClusterIP:  "10.96.0.1",
			ClusterIPs: []string{"10.96.0.1"},
			Ports:      []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
		},
	}
	if change != nil {
		change(svc)
	}
	return svc
}

func clientIPAffinity(timeout *int32) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: timeout}}
	}
}

func healthChecked(kind corev1.ServiceType, policy corev1.ServiceExternalTrafficPolicy) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = kind, policy, 32000
	}
}

func TestConvertService(t *testing.T) {
	tests := []struct {
		name   string
		change func(*corev1.Service)
		want   func(*service.Service) // changes what aService(nil) becomes
	}{
		{"a plain service has its address and port", nil, func(*service.Service) {}},
		{"both families are kept, v4-mapped addresses become IPv4",
			func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"::ffff:10.96.0.1", "fd00::1"} },
			func(s *service.Service) { s.ClusterIPs = addrs("10.96.0.1", "fd00::1") }},
		{"without clusterIPs the older clusterIP counts",
			func(s *corev1.Service) { s.Spec.ClusterIPs = nil },
			func(*service.Service) {}},
		{"externalIPs are kept, what is no address is skipped",
			func(s *corev1.Service) {
				s.Spec.ExternalIPs = []string{"192.0.2.1", "x", "2001:db8::1", "fe80::1%eth0"}
			},
			func(s *service.Service) { s.ExternalIPs = addrs("192.0.2.1", "2001:db8::1") }},
		{"load balancer addresses count with ipMode VIP or none, not with Proxy or a host name",
			func(s *corev1.Service) {
				s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{
					{IP: "192.0.2.1"},
					{IP: "192.0.2.2", IPMode: new(corev1.LoadBalancerIPModeVIP)},
					{IP: "192.0.2.3", IPMode: new(corev1.LoadBalancerIPModeProxy)},
					{Hostname: "lb.example.test"},
				}
			},
			func(s *service.Service) { s.LoadBalancerIPs = addrs("192.0.2.1", "192.0.2.2") }},
		{"policies Local are kept",
			func(s *corev1.Service) {
				s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
				s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			},
			func(s *service.Service) { s.InternalPolicy, s.ExternalPolicy = service.Local, service.Local }},
		{"policies Cluster are the default",
			func(s *corev1.Service) {
				s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyCluster)
				s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
			},
			func(*service.Service) {}},
		{"TCP, UDP and SCTP are kept and may share a port, absent is TCP, the node port is kept",
			func(s *corev1.Service) {
				s.Spec.Ports = []corev1.ServicePort{
					{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, NodePort: 30053},
					{Name: "dns", Protocol: corev1.ProtocolTCP, Port: 53},
					{Name: "sig", Protocol: corev1.ProtocolSCTP, Port: 53, NodePort: 30053},
					{Name: "plain", Port: 80},
				}
			},
			func(s *service.Service) {
				s.Ports = []service.Port{
					{PortKey: service.PortKey{Name: "dns", Proto: service.UDP}, Port: 53, NodePort: 30053},
					{PortKey: service.PortKey{Name: "dns", Proto: service.TCP}, Port: 53},
					{PortKey: service.PortKey{Name: "sig", Proto: service.SCTP}, Port: 53, NodePort: 30053},
					{PortKey: service.PortKey{Name: "plain", Proto: service.TCP}, Port: 80},
				}
			}},
		{"source ranges are trimmed, cut to their length and of both families",
			func(s *corev1.Service) {
				s.Spec.LoadBalancerSourceRanges = []string{" 10.1.2.3/8 ", "2001:db8::/32", "::ffff:192.0.2.0/120", "0.0.0.0/0", "198.051.100.007/24"}
			},
			func(s *service.Service) {
				s.LoadBalancerSourceRanges = prefixes("10.0.0.0/8", "2001:db8::/32", "192.0.2.0/24", "0.0.0.0/0", "198.51.100.0/24")
			}},
		{"a source range that is none is one nobody is in",
			func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"10.0.0.1"} },
			func(s *service.Service) { s.LoadBalancerSourceRanges = []netip.Prefix{{}} }},
		{"affinity without a timeout has the API's default", clientIPAffinity(nil),
			func(s *service.Service) { s.AffinityTimeout = 3 * time.Hour }},
		{"affinity has its timeout", clientIPAffinity(new(int32(60))),
			func(s *service.Service) { s.AffinityTimeout = time.Minute }},
		{"affinity with a timeout the API does not allow has the default", clientIPAffinity(new(int32(0))),
			func(s *service.Service) { s.AffinityTimeout = 3 * time.Hour }},
		{"affinity None has no timeout, whatever is configured",
			func(s *corev1.Service) {
				clientIPAffinity(new(int32(60)))(s)
				s.Spec.SessionAffinity = corev1.ServiceAffinityNone
			},
			func(*service.Service) {}},
		{"the health check node port of a load balancer with policy Local is kept",
			healthChecked(corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal),
			func(s *service.Service) { s.HealthCheckNodePort, s.ExternalPolicy = 32000, service.Local }},
		{"the health check node port means nothing with policy Cluster",
			healthChecked(corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyCluster),
			func(*service.Service) {}},
		{"the health check node port means nothing without a load balancer",
			healthChecked(corev1.ServiceTypeNodePort, corev1.ServiceExternalTrafficPolicyLocal),
			func(s *service.Service) { s.ExternalPolicy = service.Local }},
		{"publishNotReadyAddresses comes through conditions only",
			func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true },
			func(*service.Service) {}},
		{"the annotation leaves it to pod links",
			func(s *corev1.Service) { s.Annotations = map[string]string{annotationEastWest: eastWestPacket} },
			func(s *service.Service) { s.ByPacket = true }},
		{"another value of the annotation means nothing",
			func(s *corev1.Service) { s.Annotations = map[string]string{annotationEastWest: "socket"} },
			func(*service.Service) {}},
		{"ExternalName is ignored",
			func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }, nil},
		{"a headless service is ignored",
			func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "None", []string{"None"} }, nil},
		{"a service without an address yet is ignored",
			func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil }, nil},
		{"a service of another proxy is ignored",
			func(s *corev1.Service) { s.Labels = map[string]string{labelProxyName: "other"} }, nil},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, ok := convertService(aService(tc.change), "")
			if tc.want == nil {
				if ok {
					t.Errorf("not ignored: %v", got)
				}
				return
			}
			want := &service.Service{
				Name:       service.Name{Namespace: "shop", Name: "web"},
				ClusterIPs: addrs("10.96.0.1"),
				Ports:      []service.Port{{PortKey: service.PortKey{Name: "http", Proto: service.TCP}, Port: 80}},
			}
			tc.want(want)
			if diff := cmp.Diff(want, got, byValue); diff != "" {
				t.Errorf("service (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheProxyNameDecidesWhichServicesAreBalanced(t *testing.T) {
	labels := map[string]map[string]string{
		"no label": nil, "mine": {labelProxyName: "ebb"}, "another's": {labelProxyName: "other"}, "empty": {labelProxyName: ""},
	}
	for proxy, want := range map[string]string{"": "no label", "ebb": "mine"} {
		for name, l := range labels {
			_, ok := convertService(aService(func(s *corev1.Service) { s.Labels = l }), proxy)
			if ok != (name == want) {
				t.Errorf("proxy %q, %s: balanced %v", proxy, name, ok)
			}
		}
	}
}

// aSlice is shop/web-1 of shop/web with one ready endpoint on n1.
func aSlice(change func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-1",
			Labels: map[string]string{discoveryv1.LabelServiceName: "web"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.1.0.1"}, NodeName: new("n1")}},
	}
	if change != nil {
		change(slice)
	}
	return slice
}

func target(kind, namespace string) func(*discoveryv1.EndpointSlice) {
	return func(s *discoveryv1.EndpointSlice) {
		s.Endpoints[0].TargetRef = &corev1.ObjectReference{Kind: kind, Namespace: namespace, Name: "web-x"}
	}
}

func TestConvertSlice(t *testing.T) {
	healthy := func(addr, node string) service.SliceEndpoint {
		return service.SliceEndpoint{Addr: netip.MustParseAddr(addr), NodeName: node, Ready: true, Serving: true}
	}
	conditions := func(ready, serving, terminating *bool) func(*discoveryv1.EndpointSlice) {
		return func(s *discoveryv1.EndpointSlice) {
			s.Endpoints[0].Conditions = discoveryv1.EndpointConditions{Ready: ready, Serving: serving, Terminating: terminating}
		}
	}
	tests := []struct {
		name   string
		change func(*discoveryv1.EndpointSlice)
		want   func(*service.Slice)
	}{
		{"absent conditions are ready, serving, not terminating", nil, func(*service.Slice) {}},
		{"given conditions are kept", conditions(new(false), new(false), new(true)),
			func(s *service.Slice) {
				s.Endpoints[0].Ready, s.Endpoints[0].Serving, s.Endpoints[0].Terminating = false, false, true
			}},
		{"not ready says nothing about serving", conditions(new(false), nil, nil),
			func(s *service.Slice) { s.Endpoints[0].Ready = false }},
		{"only the first address counts",
			func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Addresses = []string{"10.1.0.9", "10.1.0.8"} },
			func(s *service.Slice) { s.Endpoints[0] = healthy("10.1.0.9", "n1") }},
		{"an endpoint without node is remote",
			func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].NodeName = nil },
			func(s *service.Slice) { s.Endpoints[0] = healthy("10.1.0.1", "") }},
		{"an endpoint without address or of the other family is skipped",
			func(s *discoveryv1.EndpointSlice) {
				s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{},
					discoveryv1.Endpoint{Addresses: []string{"fd00::1"}}, discoveryv1.Endpoint{Addresses: []string{"host"}})
			},
			func(*service.Slice) {}},
		{"IPv6 slices are kept",
			func(s *discoveryv1.EndpointSlice) {
				s.AddressType = discoveryv1.AddressTypeIPv6
				s.Endpoints[0].Addresses = []string{"fd00::1"}
			},
			func(s *service.Slice) { s.Endpoints[0] = healthy("fd00::1", "n1") }},
		{"ports that are nil, 0, unnamed or of an unknown protocol are skipped, UDP and SCTP are kept",
			func(s *discoveryv1.EndpointSlice) {
				s.Ports = []discoveryv1.EndpointPort{
					{Name: new("a")},
					{Name: new("b"), Port: new(int32(0))},
					{Port: new(int32(80))},
					{Name: new("c"), Port: new(int32(80)), Protocol: new(corev1.Protocol("DCCP"))},
					{Name: new(""), Port: new(int32(53)), Protocol: new(corev1.ProtocolUDP)},
					{Name: new("d"), Port: new(int32(53)), Protocol: new(corev1.ProtocolSCTP)},
				}
			},
			func(s *service.Slice) {
				s.Ports = []service.SlicePort{
					{PortKey: service.PortKey{Proto: service.UDP}, Port: 53},
					{PortKey: service.PortKey{Name: "d", Proto: service.SCTP}, Port: 53},
				}
			}},
		{"FQDN slices are ignored",
			func(s *discoveryv1.EndpointSlice) { s.AddressType = discoveryv1.AddressTypeFQDN }, nil},
		{"a slice without service is ignored",
			func(s *discoveryv1.EndpointSlice) { s.Labels = nil }, nil},
		{"a headless slice is ignored",
			func(s *discoveryv1.EndpointSlice) { s.Labels[corev1.IsHeadlessService] = "" }, nil},
		{"the label of a proxy is no matter of slices: services decide",
			func(s *discoveryv1.EndpointSlice) { s.Labels[labelProxyName] = "other" }, func(*service.Slice) {}},
		{"hints are kept as sets",
			func(s *discoveryv1.EndpointSlice) {
				s.Endpoints[0].Hints = &discoveryv1.EndpointHints{
					ForZones: []discoveryv1.ForZone{{Name: "b"}, {Name: "a"}, {Name: "b"}},
					ForNodes: []discoveryv1.ForNode{{Name: "n1"}},
				}
			},
			func(s *service.Slice) {
				s.Endpoints[0].ZoneHints, s.Endpoints[0].NodeHints = service.NewNameSet("a", "b"), service.NewNameSet("n1")
			}},
		{"an address with leading zeros is decimal",
			func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Addresses = []string{"010.001.0.012"} },
			func(s *service.Slice) { s.Endpoints[0].Addr = netip.MustParseAddr("10.1.0.12") }},
		{"a hint for a zone without a name is a hint",
			func(s *discoveryv1.EndpointSlice) {
				s.Endpoints[0].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{}}}
			},
			func(s *service.Slice) { s.Endpoints[0].ZoneHints = service.NewNameSet(nameless) }},
		{"hints that say nothing are none",
			func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Hints = &discoveryv1.EndpointHints{} },
			func(*service.Slice) {}},
		{"the pod is known, in the slice's namespace unless it says another", target("Pod", ""),
			func(s *service.Slice) { s.Endpoints[0].Pod = service.Name{Namespace: "shop", Name: "web-x"} }},
		{"the pod's own namespace counts", target("Pod", "other"),
			func(s *service.Slice) { s.Endpoints[0].Pod = service.Name{Namespace: "other", Name: "web-x"} }},
		{"what is no pod is none", target("VirtualMachine", ""), func(*service.Slice) {}},
		{"the time of the change is kept",
			func(s *discoveryv1.EndpointSlice) {
				s.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: "2026-01-02T03:04:05.000000006Z"}
			},
			func(s *service.Slice) { s.Triggered = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC) }},
		{"a time that is none is not known",
			func(s *discoveryv1.EndpointSlice) {
				s.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: "yesterday"}
			},
			func(*service.Slice) {}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, ok := convertSlice(aSlice(tc.change))
			if tc.want == nil {
				if ok {
					t.Errorf("not ignored: %v", got)
				}
				return
			}
			want := &service.Slice{
				Key:       service.Name{Namespace: "shop", Name: "web-1"},
				Service:   service.Name{Namespace: "shop", Name: "web"},
				Ports:     []service.SlicePort{{PortKey: service.PortKey{Name: "http", Proto: service.TCP}, Port: 8080}},
				Endpoints: []service.SliceEndpoint{healthy("10.1.0.1", "n1")},
			}
			tc.want(want)
			if diff := cmp.Diff(want, got, byValue); diff != "" {
				t.Errorf("slice (-want +got):\n%s", diff)
			}
		})
	}
}
