package watch

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/ebb-lb/ebb/agent/service"
)

// running is a source that delivered shop/web, its slice and the node n1.
func running(t *testing.T) (*harness, *fake.Clientset) {
	t.Helper()
	client := fake.NewClientset(aService(nil), aSlice(nil), aNode("n1", "192.0.2.1"))
	began := watched(client)
	h := newHarness(t)
	opts := onN1
	opts.NodeAnnotations = []string{"drain"}
	h.start(NewKubernetes(client, opts, h.store, slog.New(slog.DiscardHandler)).Run)
	for range watchCount {
		<-began
	}
	h.awaitEndpoints(web, "10.1.0.1:8080")
	return h, client
}

func TestChangesOfAServiceInMidLifeReachTheStore(t *testing.T) {
	ctx := t.Context()
	h, client := running(t)
	svc := func() *service.Service { return h.views[web].Service }

	must[*corev1.Service](t)(client.CoreV1().Services("shop").Update(ctx, aService(func(s *corev1.Service) {
		clientIPAffinity(nil)(s)
		s.Spec.LoadBalancerSourceRanges = []string{"10.0.0.0/8"}
		s.Spec.Type, s.Spec.HealthCheckNodePort = corev1.ServiceTypeLoadBalancer, 32000
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}), metav1.UpdateOptions{}))
	h.await("the changed service", func() bool {
		return svc().AffinityTimeout == 3*time.Hour && len(svc().LoadBalancerSourceRanges) == 1 &&
			svc().HealthCheckNodePort == 32000 && svc().ExternalPolicy == service.Local
	})
	must[*corev1.Service](t)(client.CoreV1().Services("shop").Update(ctx, aService(nil), metav1.UpdateOptions{}))
	h.await("the service as it was", func() bool {
		return svc().AffinityTimeout == 0 && len(svc().LoadBalancerSourceRanges) == 0 && svc().HealthCheckNodePort == 0
	})
}

func TestChangesOfASliceInMidLifeReachTheStore(t *testing.T) {
	h, client := running(t)
	endpoint := func() service.Endpoint {
		return h.views[web].Endpoints[service.PortKey{Name: "http", Proto: service.TCP}][0]
	}
	trigger := time.Now().Add(time.Minute).UTC()
	must[*discoveryv1.EndpointSlice](t)(client.DiscoveryV1().EndpointSlices("shop").Update(t.Context(), aSlice(func(s *discoveryv1.EndpointSlice) {
		s.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: trigger.Format(time.RFC3339Nano)}
		s.Endpoints[0].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "a"}}}
	}), metav1.UpdateOptions{}))
	h.await("the hint", func() bool { return endpoint().ZoneHints.Has("a") })
	if got := h.views[web].Triggered; !got.Equal(trigger) {
		t.Errorf("triggered %v, want %v", got, trigger)
	}
}

func TestChangesOfTheNodeInMidLifeReachTheStore(t *testing.T) {
	ctx := t.Context()
	h, client := running(t)
	node := aNode("n1", "192.0.2.1")
	node.Labels = map[string]string{corev1.LabelTopologyZone: "a"}
	node.Annotations = map[string]string{"drain": "yes"}
	node.Spec.Taints = []corev1.Taint{{Key: "down", Effect: corev1.TaintEffectNoExecute}}
	must[*corev1.Node](t)(client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{}))
	h.await("the node's zone, annotation and taint", func() bool {
		return h.node.Zone == "a" && h.node.Annotations["drain"] == "yes" && len(h.node.Taints) == 1
	})
	must[*corev1.Node](t)(client.CoreV1().Nodes().Update(ctx, aNode("n1", "192.0.2.1"), metav1.UpdateOptions{}))
	h.await("the node as it was", func() bool { return h.node.Zone == "" && len(h.node.Taints) == 0 })
	if err := client.CoreV1().Nodes().Delete(ctx, "n1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.await("the node unknown", func() bool { return !h.node.Known && h.node.Name == "n1" })
}

func TestEditsOfManifestsReachTheStore(t *testing.T) {
	path := t.TempDir()
	h := newHarness(t)
	d := newDir(h, path)
	load := func(text string) {
		t.Helper()
		write(t, path, "all.yaml", text)
		d.load()
		h.take()
		if d.Err() != nil {
			t.Fatal(d.Err())
		}
	}
	load(goodService + "---\n" + goodServiceCIDR + "---\n" + goodNode)
	if !h.node.Known || !cmp.Equal(h.cidrs, prefixes("10.96.0.0/16", "fd00:96::/108"), byValue) {
		t.Errorf("node %v, ServiceCIDRs %v", h.node, h.cidrs)
	}
	load(edit(t, goodService, "ports:", "sessionAffinity: ClientIP\n  ports:") + "---\n" + strings.Replace(goodServiceCIDR, "10.96", "10.97", 1))
	if h.views[web].Service.AffinityTimeout != 3*time.Hour || !cmp.Equal(h.cidrs, prefixes("10.97.0.0/16", "fd00:96::/108"), byValue) {
		t.Errorf("service %v, ServiceCIDRs %v", h.views[web].Service, h.cidrs)
	}
	if h.node.Known || h.node.Name != "n1" {
		t.Errorf("node without a manifest = %v", h.node)
	}
	load(goodService)
	if h.views[web].Service.AffinityTimeout != 0 || len(h.cidrs) != 0 {
		t.Errorf("service %v, ServiceCIDRs %v", h.views[web].Service, h.cidrs)
	}
}
