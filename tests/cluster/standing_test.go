package cluster

import (
	"context"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ebb-lb/ebb/tests/lab/pod"
)

// standing is the namespace of pods that are there from the beginning to the end.
const standing = "standing"

// The standing pods: of an application on both nodes, and one that is never ready.
const (
	a1, a2, b1 = "a-1", "a-2", "b-1"
	unready    = "unready"
)

const (
	httpPort, echoPort = 80, 5353
	// canary is the service under load.
	canary = "canary"
	// nameLabel is a pod's own name.
	nameLabel                      = "name"
	canaryHTTPNodePort             = 30080
	canaryUDPNodePort              = 30053
	readyPath, neverReadyPath      = "/healthz", "/never"
	patientQuietMillis             = 700
	appLabel, webApp, unreadyLabel = "app", "web", "unready"
)

// numbered are the addresses that belong to one service of the tests.
type numbered struct {
	cluster4, cluster6, lb4, lb6, external4, external6 netip.Addr
}

// addressesOf returns those of service number n, from 0 to 99.
func addressesOf(n int) numbered {
	return numbered{
		cluster4: nth(serviceRange4, 10+n), cluster6: nth(serviceRange6, 10+n),
		lb4: nth(outside4, 10+n), lb6: nth(outside6, 10+n),
		external4: nth(outside4, 120+n), external6: nth(outside6, 120+n),
	}
}

// nth returns an address of p by its last byte.
func nth(p netip.Prefix, n int) netip.Addr {
	b := p.Addr().AsSlice()
	b[len(b)-1] = byte(n)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// startLoad creates the standing pods and a service of them, and begins to
// keep it under load.
func (c *cluster) startLoad(ctx context.Context) error {
	if err := c.createNamespace(ctx, standing); err != nil {
		return err
	}
	for name, node := range map[string]string{a1: nodeA, a2: nodeA, b1: nodeB} {
		if err := c.createPod(ctx, standing, podNamed(name, node, webApp, readyPath)); err != nil {
			return err
		}
	}
	if err := c.createPod(ctx, standing, podNamed(unready, nodeA, unreadyLabel, neverReadyPath)); err != nil {
		return err
	}
	if err := c.createCanary(ctx); err != nil {
		return err
	}
	at := addressesOf(0)
	for _, target := range []netip.Addr{at.lb4, at.lb6} {
		if err := c.answers(ctx, netip.AddrPortFrom(target, httpPort), a1, a2, b1); err != nil {
			return err
		}
	}
	http, udp := targets([]netip.Addr{at.lb4, at.lb6}, httpPort, echoPort)
	http2, udp2 := targets([]netip.Addr{c.entry.Addr4, c.entry.Addr6}, canaryHTTPNodePort, canaryUDPNodePort)
	var err error
	c.load, err = startClient(c.lab.Client, append(http, http2...), append(udp, udp2...), "start")
	return err
}

func targets(addrs []netip.Addr, httpPort, udpPort uint16) (http, udp []string) {
	for _, a := range addrs {
		http = append(http, netip.AddrPortFrom(a, httpPort).String())
		udp = append(udp, netip.AddrPortFrom(a, udpPort).String())
	}
	return http, udp
}

func (c *cluster) createNamespace(ctx context.Context, name string) error {
	_, err := c.client.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return err
}

func (c *cluster) createPod(ctx context.Context, namespace string, p *corev1.Pod) error {
	_, err := c.client.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{})
	return err
}

func (c *cluster) createCanary(ctx context.Context) error {
	at := addressesOf(0)
	s := serviceNamed(canary, at)
	s.Spec.Type = corev1.ServiceTypeLoadBalancer
	s.Spec.Ports[0].NodePort, s.Spec.Ports[1].NodePort = canaryHTTPNodePort, canaryUDPNodePort
	created, err := c.client.CoreV1().Services(standing).Create(ctx, s, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	created.Status.LoadBalancer.Ingress = ingress(corev1.LoadBalancerIPModeVIP, at.lb4, at.lb6)
	_, err = c.client.CoreV1().Services(standing).UpdateStatus(ctx, created, metav1.UpdateOptions{})
	return err
}

func ingress(mode corev1.LoadBalancerIPMode, addrs ...netip.Addr) []corev1.LoadBalancerIngress {
	var all []corev1.LoadBalancerIngress
	for _, a := range addrs {
		all = append(all, corev1.LoadBalancerIngress{IP: a.String(), IPMode: &mode})
	}
	return all
}

// serviceNamed is a dual-stack ClusterIP service of the standing pods.
func serviceNamed(name string, at numbered) *corev1.Service {
	both := corev1.IPFamilyPolicyRequireDualStack
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{appLabel: webApp}, Type: corev1.ServiceTypeClusterIP,
			IPFamilyPolicy: &both, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
			ClusterIP: at.cluster4.String(), ClusterIPs: []string{at.cluster4.String(), at.cluster6.String()},
			Ports: []corev1.ServicePort{
				{Name: "http", Protocol: corev1.ProtocolTCP, Port: httpPort, TargetPort: intstr.FromString("web")},
				{Name: "echo", Protocol: corev1.ProtocolUDP, Port: echoPort, TargetPort: intstr.FromInt32(pod.UDPPort)},
			},
		},
	}
}

// podNamed is a patient pod on a node, which is ready if it answers at path.
func podNamed(name, node, app, path string) *corev1.Pod {
	spec := podSpec(patient, path)
	spec.NodeName = node
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{appLabel: app, nameLabel: name}}, Spec: spec,
	}
}

func podSpec(kind, path string) corev1.PodSpec {
	return corev1.PodSpec{Containers: []corev1.Container{{
		Name: "app", Image: "lab/" + kind,
		Env: []corev1.EnvVar{
			{Name: podEnv, Value: kind}, {Name: quietEnv, Value: strconv.Itoa(patientQuietMillis)},
		},
		Ports: []corev1.ContainerPort{
			{Name: "web", ContainerPort: pod.HTTPPort}, {Name: "echo", ContainerPort: pod.UDPPort, Protocol: corev1.ProtocolUDP},
		},
		ReadinessProbe: &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(pod.HTTPPort)}},
			PeriodSeconds: 1, FailureThreshold: 1, TimeoutSeconds: 5,
		},
	}}}
}
