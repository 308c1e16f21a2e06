package cluster

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

func addrs(a ...netip.Addr) []netip.Addr { return a }

func TestAServiceIsServedFromItsCreationToItsDeletion(t *testing.T) {
	w := setup(t)
	s := w.service(nil)
	w.leadsTo("cluster IP", httpPort, addrs(s.cluster4, s.cluster6), a1, a2, b1)
	s.delete()
	w.nobody("after deletion", httpPort, s.cluster4, s.cluster6)
}

func TestInternalPolicyDecidesAboutClusterIPs(t *testing.T) {
	w := setup(t)
	local, all := corev1.ServiceInternalTrafficPolicyLocal, corev1.ServiceInternalTrafficPolicyCluster
	s := w.service(func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = &local })
	w.leadsTo("policy Local", httpPort, addrs(s.cluster4, s.cluster6), a1, a2)
	s.change(func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = &all })
	w.leadsTo("policy Cluster", httpPort, addrs(s.cluster4, s.cluster6), a1, a2, b1)
	s.change(func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = &local })
	w.leadsTo("policy Local again", httpPort, addrs(s.cluster4, s.cluster6), a1, a2)
}

func TestExternalPolicyDecidesAboutAddressesFromOutside(t *testing.T) {
	w := setup(t)
	s := w.service(loadBalancer)
	s.ingress(ingress(corev1.LoadBalancerIPModeVIP, s.lb4, s.lb6))
	w.leadsTo("policy Cluster", httpPort, addrs(s.lb4, s.lb6), a1, a2, b1)
	s.change(func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal })
	w.leadsTo("policy Local", httpPort, addrs(s.lb4, s.lb6), a1, a2)
	w.leadsTo("policy Local does not concern cluster IPs", httpPort, addrs(s.cluster4), a1, a2, b1)
	nodePort := uint16(s.get().Spec.Ports[0].NodePort)
	w.leadsTo("node port of the other node", nodePort, addrs(w.other.Addr4, w.other.Addr6), b1)
	client4, client6 := w.clientAddrs()
	for target, client := range map[netip.Addr]netip.Addr{s.lb4: client4, s.lb6: client6, w.other.Addr4: client4} {
		w.seesClient(target, map[bool]uint16{true: nodePort, false: httpPort}[target == w.other.Addr4], client)
	}
	s.change(func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster })
	w.leadsTo("policy Cluster again", httpPort, addrs(s.lb4, s.lb6), a1, a2, b1)
}

func loadBalancer(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeLoadBalancer }

func TestExternalPolicyLocalWithoutALocalPodLeadsNowhere(t *testing.T) {
	w := setup(t)
	s := w.service(func(s *corev1.Service) {
		loadBalancer(s)
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		s.Spec.Selector = map[string]string{nameLabel: b1}
	})
	s.ingress(ingress(corev1.LoadBalancerIPModeVIP, s.lb4, s.lb6))
	w.leadsTo("cluster IP", httpPort, addrs(s.cluster4), b1)
	w.nobody("no pod on the node", httpPort, s.lb4, s.lb6)
	s.change(func(s *corev1.Service) { s.Spec.Selector = map[string]string{nameLabel: a1} })
	w.leadsTo("a pod on the node", httpPort, addrs(s.lb4, s.lb6), a1)
}

func TestExternalIPsComeAndGo(t *testing.T) {
	w := setup(t)
	s := w.service(nil)
	at := s.numbered
	s.change(func(s *corev1.Service) { s.Spec.ExternalIPs = []string{at.external4.String(), at.external6.String()} })
	w.leadsTo("external IP", httpPort, addrs(s.external4, s.external6), a1, a2, b1)
	s.change(func(s *corev1.Service) { s.Spec.ExternalIPs = []string{at.external6.String()} })
	w.nobody("removed", httpPort, s.external4)
	w.leadsTo("kept", httpPort, addrs(s.external6), a1, a2, b1)
}

func TestIPModeProxyIsLeftToTheLoadBalancer(t *testing.T) {
	w := setup(t)
	s := w.service(loadBalancer)
	s.ingress(ingress(corev1.LoadBalancerIPModeProxy, s.lb4, s.lb6))
	w.leadsTo("cluster IP", httpPort, addrs(s.cluster4), a1, a2, b1)
	w.nobody("ipMode Proxy", httpPort, s.lb4, s.lb6)
	s.ingress(ingress(corev1.LoadBalancerIPModeVIP, s.lb4, s.lb6))
	w.leadsTo("ipMode VIP", httpPort, addrs(s.lb4, s.lb6), a1, a2, b1)
	s.ingress(nil)
	w.nobody("no ingress", httpPort, s.lb4, s.lb6)
}

func TestNodePortsNeedNotBeAllocated(t *testing.T) {
	w := setup(t)
	no, yes := false, true
	s := w.service(func(s *corev1.Service) { loadBalancer(s); s.Spec.AllocateLoadBalancerNodePorts = &no })
	s.ingress(ingress(corev1.LoadBalancerIPModeVIP, s.lb4))
	w.leadsTo("load balancer", httpPort, addrs(s.lb4), a1, a2, b1)
	if p := s.get().Spec.Ports[0].NodePort; p != 0 {
		t.Errorf("node port %d was allocated", p)
	}
	s.change(func(s *corev1.Service) { s.Spec.AllocateLoadBalancerNodePorts = &yes })
	allocated := uint16(s.get().Spec.Ports[0].NodePort)
	w.leadsTo("node port", allocated, addrs(w.entry.Addr4, w.other.Addr6), a1, a2, b1)
	s.change(func(s *corev1.Service) {
		s.Spec.AllocateLoadBalancerNodePorts = &no
		for i := range s.Spec.Ports {
			s.Spec.Ports[i].NodePort = 0
		}
	})
	w.nobody("node port given up", allocated, w.entry.Addr4)
}

func TestHeadlessAndExternalNameAreIgnored(t *testing.T) {
	w := setup(t)
	headless := w.service(func(s *corev1.Service) {
		s.Spec.ClusterIP, s.Spec.ClusterIPs = corev1.ClusterIPNone, []string{corev1.ClusterIPNone}
	})
	s := w.service(nil)
	w.leadsTo("cluster IP", httpPort, addrs(s.cluster4), a1, a2, b1)
	at := s.numbered
	s.change(func(s *corev1.Service) {
		s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.test"}
	})
	w.nobody("ExternalName", httpPort, s.cluster4, s.cluster6)
	for _, name := range []string{headless.name, s.name} {
		w.check(name, w.unknown(name))
	}
	s.change(func(now *corev1.Service) { now.Spec = serviceNamed(now.Name, at).Spec })
	w.leadsTo("ClusterIP again", httpPort, addrs(s.cluster4, s.cluster6), a1, a2, b1)
}

func TestServicesOfAnotherProxyAreLeftAlone(t *testing.T) {
	w := setup(t)
	const label = "service.kubernetes.io/service-proxy-name"
	s := w.service(func(s *corev1.Service) { s.Labels = map[string]string{label: "other"} })
	w.nobody("of another proxy", httpPort, s.cluster4)
	s.change(func(s *corev1.Service) { delete(s.Labels, label) })
	w.leadsTo("of ours", httpPort, addrs(s.cluster4, s.cluster6), a1, a2, b1)
	s.change(func(s *corev1.Service) { s.Labels = map[string]string{label: "other"} })
	w.nobody("of another proxy again", httpPort, s.cluster4, s.cluster6)
}

func TestPodsThatAreNotReadyArePublishedIfTheServiceSaysSo(t *testing.T) {
	w := setup(t)
	s := w.service(func(s *corev1.Service) { s.Spec.Selector = map[string]string{appLabel: unreadyLabel} })
	w.nobody("not ready", httpPort, s.cluster4)
	s.change(func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true })
	w.leadsTo("published", httpPort, addrs(s.cluster4, s.cluster6), unready)
	s.change(func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = false })
	w.nobody("not ready again", httpPort, s.cluster4, s.cluster6)
}

func TestServicesInALaterServiceCIDRAreServed(t *testing.T) {
	w := setup(t)
	cidrs := w.client.NetworkingV1().ServiceCIDRs()
	_, err := cidrs.Create(t.Context(), &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: "extra"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{extraRange.String()}},
	}, metav1.CreateOptions{})
	w.must(err)
	t.Cleanup(func() { w.must(cidrs.Delete(afterwards(t), "extra", metav1.DeleteOptions{})) })
	addr := nth(extraRange, 80)
	w.must(await(t.Context(), patience, func() error { return w.ready(t.Context(), "extra") }))
	s := w.service(func(s *corev1.Service) {
		single := corev1.IPFamilyPolicySingleStack
		s.Spec.IPFamilyPolicy, s.Spec.IPFamilies = &single, []corev1.IPFamily{corev1.IPv4Protocol}
		s.Spec.ClusterIP, s.Spec.ClusterIPs = addr.String(), []string{addr.String()}
	})
	w.leadsTo("later range", httpPort, addrs(addr), a1, a2, b1)
	s.delete()
	w.nobody("deleted", httpPort, addr)
}

// ready reports whether addresses of a ServiceCIDR can be had.
func (w *world) ready(ctx context.Context, cidr string) error {
	now, err := w.client.NetworkingV1().ServiceCIDRs().Get(ctx, cidr, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, c := range now.Status.Conditions {
		if c.Type == networkingv1.ServiceCIDRConditionReady && c.Status == metav1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("ServiceCIDR %s is not ready: %+v", cidr, now.Status.Conditions)
}

func TestAFamilyComesAndGoes(t *testing.T) {
	w := setup(t)
	single, prefer := corev1.IPFamilyPolicySingleStack, corev1.IPFamilyPolicyPreferDualStack
	s := w.service(func(s *corev1.Service) {
		s.Spec.IPFamilyPolicy, s.Spec.IPFamilies = &single, []corev1.IPFamily{corev1.IPv4Protocol}
		s.Spec.ClusterIPs = s.Spec.ClusterIPs[:1]
	})
	at := s.numbered
	w.leadsTo("one family", httpPort, addrs(s.cluster4), a1, a2, b1)
	w.nobody("no IPv6 yet", httpPort, s.cluster6)
	s.change(func(s *corev1.Service) {
		s.Spec.IPFamilyPolicy = &prefer
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
		s.Spec.ClusterIPs = []string{at.cluster4.String(), at.cluster6.String()}
	})
	w.leadsTo("both families", httpPort, addrs(s.cluster4, s.cluster6), a1, a2, b1)
	s.change(func(s *corev1.Service) {
		s.Spec.IPFamilyPolicy, s.Spec.IPFamilies = &single, s.Spec.IPFamilies[:1]
		s.Spec.ClusterIPs = s.Spec.ClusterIPs[:1]
	})
	w.nobody("IPv6 given up", httpPort, s.cluster6)
	w.leadsTo("IPv4 kept", httpPort, addrs(s.cluster4), a1, a2, b1)
}

func TestPortsChangeInMidLife(t *testing.T) {
	w := setup(t)
	s := w.service(nil)
	w.leadsTo("target port by name", httpPort, addrs(s.cluster4), a1, a2, b1)
	for _, target := range []intstr.IntOrString{intstr.FromInt32(pod.HTTPPort), intstr.FromString("web")} {
		s.change(func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = target })
		w.leadsTo("target port "+target.String(), httpPort, addrs(s.cluster4, s.cluster6), a1, a2, b1)
	}
	s.change(func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromInt32(9) })
	w.nobody("target port nobody listens on", httpPort, s.cluster4)
	const moved = 81
	s.change(func(s *corev1.Service) {
		s.Spec.Ports[0].Port, s.Spec.Ports[0].TargetPort = moved, intstr.FromString("web")
	})
	w.leadsTo("another port", moved, addrs(s.cluster4, s.cluster6), a1, a2, b1)
	w.nobody("the old port", httpPort, s.cluster4)
	s.change(func(s *corev1.Service) { s.Spec.Ports[0].Name = "renamed" })
	w.leadsTo("another name", moved, addrs(s.cluster4, s.cluster6), a1, a2, b1)
}

func TestTCPAndUDPShareAPortNumber(t *testing.T) {
	w := setup(t)
	const same = 5300
	s := w.service(func(s *corev1.Service) { s.Spec.Ports[0].Port, s.Spec.Ports[1].Port = same, same })
	w.leadsTo("TCP", same, addrs(s.cluster4, s.cluster6), a1, a2, b1)
	for _, a := range addrs(s.cluster4, s.cluster6) {
		w.check("UDP", w.answered(t.Context(), askUDP, netip.AddrPortFrom(a, same), []string{a1, a2, b1}, nil))
	}
	s.change(func(s *corev1.Service) { s.Spec.Ports = s.Spec.Ports[1:] })
	w.nobody("TCP removed", same, s.cluster4)
	w.check("UDP kept", w.answered(t.Context(), askUDP, netip.AddrPortFrom(s.cluster4, same), []string{a1, a2, b1}, nil))
}

// A pod sees the client, or a node that stands for it, never anything else.
func (w *world) seesClient(target netip.Addr, port uint16, client netip.Addr) {
	w.Helper()
	at := netip.AddrPortFrom(target, port)
	for range enough {
		a, err := ask(w.Context(), w.lab.Client, at, askBound)
		if err != nil || a.peer != client {
			w.Errorf("%s: the pod sees %v, want the client at %s: %v", at, a.peer, client, err)
			return
		}
	}
}

func TestTrafficDistributionFollowsTheHintsOfTheController(t *testing.T) {
	w := setup(t)
	zone, node := corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode
	s := w.service(loadBalancer)
	s.ingress(ingress(corev1.LoadBalancerIPModeVIP, s.lb4, s.lb6))
	for _, distribution := range []*string{&zone, nil, &node, nil} {
		s.change(func(s *corev1.Service) { s.Spec.TrafficDistribution = distribution })
		want, what := []string{a1, a2, b1}, "everywhere"
		if distribution != nil {
			want, what = []string{a1, a2}, *distribution
		}
		w.leadsTo(what, httpPort, addrs(s.cluster4, s.cluster6, s.lb4), want...)
	}
	s.change(func(s *corev1.Service) {
		s.Spec.TrafficDistribution = &zone
		s.Spec.Selector = map[string]string{nameLabel: b1}
	})
	w.leadsTo("nobody in the zone", httpPort, addrs(s.cluster4), b1)
}

// A client that has no pod yet is given one by its address alone. What it has is kept
// although its address says another one, until it has been away for the timeout.
func TestSessionAffinityBindsAClientToAPod(t *testing.T) {
	w := setup(t)
	s := w.service(nil)
	w.leadsTo("no affinity", httpPort, addrs(s.cluster4), a1, a2, b1)
	const seconds = 6
	s.change(func(s *corev1.Service) {
		timeout := int32(seconds)
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}}
	})
	at := map[netip.AddrPort]string{}
	for _, a := range addrs(s.cluster4, s.cluster6) {
		target := netip.AddrPortFrom(a, httpPort)
		pod, err := w.bound(t.Context(), target)
		w.check("affinity", err)
		at[target] = pod
	}
	other := podBeside(slices.Collect(maps.Values(at)))
	everybody := s.get().Spec.Selector
	s.change(func(s *corev1.Service) { s.Spec.Selector = map[string]string{nameLabel: other} })
	w.leadsTo("one pod is left", httpPort, addrs(s.cluster4, s.cluster6), other)
	s.change(func(s *corev1.Service) { s.Spec.Selector = everybody })
	for target := range at {
		w.check("others are back", w.remains(t.Context(), target, other, seconds/2*time.Second))
	}
	time.Sleep((seconds + 2) * time.Second)
	for target, pod := range at {
		got, err := w.bound(t.Context(), target)
		if err == nil && got != pod {
			err = fmt.Errorf("%s leads to %s, want %s", target, got, pod)
		}
		w.check("after the timeout", err)
	}
	s.change(func(s *corev1.Service) {
		s.Spec.SessionAffinity, s.Spec.SessionAffinityConfig = corev1.ServiceAffinityNone, nil
	})
	w.leadsTo("no affinity again", httpPort, addrs(s.cluster4, s.cluster6), a1, a2, b1)
}

// podBeside is a pod that is none of these two.
func podBeside(taken []string) string {
	for _, p := range []string{a1, a2} {
		if !slices.Contains(taken, p) {
			return p
		}
	}
	return b1
}

// bound waits until one pod, whichever, answers everything, and says which.
func (w *world) bound(ctx context.Context, target netip.AddrPort) (string, error) {
	var first answer
	err := await(ctx, patience, func() (err error) {
		first, err = ask(ctx, w.lab.Client, target, askBound)
		if err != nil {
			return err
		}
		for range enough {
			next, err := ask(ctx, w.lab.Client, target, askBound)
			if err != nil || next.pod != first.pod {
				return fmt.Errorf("%s leads to %s and to %s: %v", target, first.pod, next.pod, err)
			}
		}
		return nil
	})
	return first.pod, err
}

// remains checks that a pod answers everything for a while.
func (w *world) remains(ctx context.Context, target netip.AddrPort, pod string, while time.Duration) error {
	for end := time.Now().Add(while); time.Now().Before(end); {
		got, err := ask(ctx, w.lab.Client, target, askBound)
		if err != nil || got.pod != pod {
			return fmt.Errorf("%s leads to %s, want %s: %v", target, got.pod, pod, err)
		}
	}
	return nil
}

func TestSourceRangesDecideWhoReachesALoadBalancer(t *testing.T) {
	w := setup(t)
	client4, client6 := w.clientAddrs()
	s := w.service(loadBalancer)
	s.ingress(ingress(corev1.LoadBalancerIPModeVIP, s.lb4, s.lb6))
	ranges := func(r ...string) { s.change(func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = r }) }
	w.leadsTo("no ranges", httpPort, addrs(s.lb4, s.lb6), a1, a2, b1)
	ranges("192.0.2.200/32", "2001:db8:99::/64")
	w.nobody("ranges of others", httpPort, s.lb4, s.lb6)
	w.leadsTo("cluster IPs are not restricted", httpPort, addrs(s.cluster4), a1, a2, b1)
	w.leadsTo("node ports are not restricted", uint16(s.get().Spec.Ports[0].NodePort), addrs(w.entry.Addr4), a1, a2, b1)
	ranges(client4.String()+"/32", client6.String()+"/128")
	w.leadsTo("ranges of the client", httpPort, addrs(s.lb4, s.lb6), a1, a2, b1)
	ranges(client4.String() + "/32")
	w.nobody("ranges of the other family only", httpPort, s.lb6)
	ranges()
	w.leadsTo("no ranges again", httpPort, addrs(s.lb4, s.lb6), a1, a2, b1)
}

func TestAHealthCheckNodePortSpeaksOfLocalPods(t *testing.T) {
	w := setup(t)
	s := w.service(func(s *corev1.Service) {
		loadBalancer(s)
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	})
	port := uint16(s.get().Spec.HealthCheckNodePort)
	for node, local := range map[*lab.Node]int{w.entry: 2, w.other: 1} {
		for _, a := range addrs(node.Addr4, node.Addr6) {
			w.check("pods on both nodes", w.healthCheck(netip.AddrPortFrom(a, port), local))
		}
	}
	s.change(func(s *corev1.Service) { s.Spec.Selector = map[string]string{nameLabel: b1} })
	w.check("no local pod", w.healthCheck(netip.AddrPortFrom(w.entry.Addr4, port), 0))
	w.check("a local pod", w.healthCheck(netip.AddrPortFrom(w.other.Addr4, port), 1))
	s.change(func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster })
	w.nobody("policy Cluster", port, w.entry.Addr4, w.other.Addr6)
}

// healthCheck waits until a node says that it has so many local pods.
func (w *world) healthCheck(at netip.AddrPort, pods int) error {
	return await(w.Context(), patience, func() error {
		ctx, cancel := context.WithTimeout(w.Context(), askBound)
		defer cancel()
		_, body, err := get(ctx, w.lab.Client, "http://"+at.String())
		text := body
		if err != nil {
			text = err.Error()
		}
		told := strings.Contains(text, fmt.Sprintf(`"localEndpoints":%d,`, pods))
		if healthy := err == nil; !told || healthy != (pods > 0) {
			return fmt.Errorf("%s should know of %d local pods: %s", at, pods, text)
		}
		return nil
	})
}
