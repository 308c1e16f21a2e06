package watch

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ebb-lb/ebb/agent/service"
)

func TestNodeAddressesAreInternalFirstAndOnlyOnce(t *testing.T) {
	got := convertNode(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1"},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeExternalIP, Address: "203.0.113.1"},
			{Type: corev1.NodeHostName, Address: "10.9.9.9"},
			{Type: corev1.NodeInternalIP, Address: "192.0.2.1"},
			{Type: corev1.NodeInternalIP, Address: "2001:db8::1"},
			{Type: corev1.NodeExternalIP, Address: "192.0.2.1"},
			{Type: corev1.NodeInternalIP, Address: "n1.example.test"},
		}},
	}, Options{})
	want := service.Node{Name: "n1", Known: true, Addrs: addrs("192.0.2.1", "2001:db8::1", "203.0.113.1")}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Errorf("node (-want +got):\n%s", diff)
	}
}

func TestConvertNode(t *testing.T) {
	tests := []struct {
		name   string
		change func(*corev1.Node)
		want   service.Node
	}{
		{"a bare node is known", func(*corev1.Node) {}, service.Node{}},
		{"its zone is the label of today, not older ones",
			func(n *corev1.Node) {
				n.Labels = map[string]string{corev1.LabelTopologyZone: "a", corev1.LabelFailureDomainBetaZone: "b"}
			},
			service.Node{Zone: "a"}},
		{"of labels and annotations only those asked for are kept",
			func(n *corev1.Node) {
				n.Labels = map[string]string{"keep": "label", "other": "x", "note": "x"}
				n.Annotations = map[string]string{"note": "annotation", "other": "x", "keep": "x"}
			},
			service.Node{Labels: map[string]string{"keep": "label"}, Annotations: map[string]string{"note": "annotation"}}},
		{"all taints are kept",
			func(n *corev1.Node) {
				n.Spec.Taints = []corev1.Taint{
					{Key: "a", Value: "v", Effect: corev1.TaintEffectNoSchedule, TimeAdded: &metav1.Time{Time: time.Unix(1, 0)}},
					{Key: "b", Effect: corev1.TaintEffectNoExecute},
				}
			},
			service.Node{Taints: []service.Taint{{Key: "a", Value: "v", Effect: "NoSchedule"}, {Key: "b", Effect: "NoExecute"}}}},
		{"a node that waits for its finalizers is being deleted",
			func(n *corev1.Node) { n.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} },
			service.Node{Deleting: true}},
		{"both pod ranges are kept",
			func(n *corev1.Node) {
				n.Spec.PodCIDR, n.Spec.PodCIDRs = "10.244.1.0/24", []string{"10.244.1.0/24", "fd00:1::/64"}
			},
			service.Node{PodCIDRs: prefixes("10.244.1.0/24", "fd00:1::/64")}},
		{"without podCIDRs the older podCIDR counts",
			func(n *corev1.Node) { n.Spec.PodCIDR = "10.244.1.0/24" },
			service.Node{PodCIDRs: prefixes("10.244.1.0/24")}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
			tc.change(node)
			tc.want.Name, tc.want.Known = "n1", true
			got := convertNode(node, Options{NodeLabels: []string{"keep", "absent"}, NodeAnnotations: []string{"note"}})
			if diff := cmp.Diff(tc.want, got, byValue); diff != "" {
				t.Errorf("node (-want +got):\n%s", diff)
			}
		})
	}
}

func aServiceCIDR(name string, ranges ...string) *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: ranges}}
}

func TestConvertServiceCIDR(t *testing.T) {
	c := aServiceCIDR("kubernetes", "10.96.0.0/16", "x", "fd00:96::/108")
	c.Status.Conditions = []metav1.Condition{{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionFalse}}
	if diff := cmp.Diff(prefixes("10.96.0.0/16", "fd00:96::/108"), convertServiceCIDR(c), byValue); diff != "" {
		t.Errorf("ranges (-want +got):\n%s", diff)
	}
}
