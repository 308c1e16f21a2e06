package drain

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/service"
)

func signals(t *testing.T, text ...string) []Signal {
	t.Helper()
	var all []Signal
	for _, s := range text {
		signal, err := ParseSignal(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, signal)
	}
	return all
}

func TestCheck(t *testing.T) {
	const autoscaler = "ToBeDeletedByClusterAutoscaler"
	node := func(change func(*service.Node)) service.Node {
		n := service.Node{Name: "n1", Known: true}
		if change != nil {
			change(&n)
		}
		return n
	}
	taint := func(taints ...service.Taint) service.Node {
		return node(func(n *service.Node) { n.Taints = taints })
	}
	tests := []struct {
		name  string
		rules []string
		need  bool
		node  service.Node
		want  string // empty: not drained
	}{
		{"an ordinary node", []string{"taint:" + autoscaler}, true, node(nil), ""},
		{"a taint, whatever its value and effect", []string{"taint:" + autoscaler}, true,
			taint(service.Taint{Key: "other"}, service.Taint{Key: autoscaler, Value: "1700000000", Effect: "NoSchedule"}), "taint:" + autoscaler},
		{"a taint of a value", []string{"taint:down=yes"}, true, taint(service.Taint{Key: "down", Value: "yes"}), "taint:down=yes"},
		{"a taint of another value", []string{"taint:down=yes"}, true, taint(service.Taint{Key: "down"}), ""},
		{"the empty value is a value", []string{"taint:down="}, true, taint(service.Taint{Key: "down", Value: "yes"}), ""},
		{"a taint nobody asked for", []string{"taint:karpenter.sh/disrupted"}, true, taint(service.Taint{Key: autoscaler}), ""},
		{"cordoned", []string{"taint:" + autoscaler}, true, taint(service.Taint{Key: "node.kubernetes.io/unschedulable"}), ""},
		{"a label", []string{"label:pool=old"}, true, node(func(n *service.Node) { n.Labels = map[string]string{"pool": "old"} }), "label:pool=old"},
		{"a label is no annotation", []string{"annotation:pool"}, true, node(func(n *service.Node) { n.Labels = map[string]string{"pool": "old"} }), ""},
		{"an annotation, also an empty one", []string{"annotation:ebb-lb.dev/drain"}, true,
			node(func(n *service.Node) { n.Annotations = map[string]string{"ebb-lb.dev/drain": ""} }), "annotation:ebb-lb.dev/drain"},
		{"the second rule", []string{"label:x", "taint:down"}, true, taint(service.Taint{Key: "down"}), "taint:down"},
		{"being deleted", nil, true, node(func(n *service.Node) { n.Deleting = true }), "the node's object is being deleted"},
		{"no object in the cluster", nil, true, service.Node{Name: "n1"}, "the cluster has no object of this node"},
		{"no object, and none needed", nil, false, service.Node{Name: "n1"}, ""},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			rules := Rules{Signals: signals(t, tc.rules...), NeedObject: tc.need}
			reason, drained := rules.Check(tc.node)
			if reason != tc.want || drained != (tc.want != "") {
				t.Errorf("drained %v, reason %q, want %q", drained, reason, tc.want)
			}
		})
	}
}

func TestSignalsAreFormattedAsTheyAreRead(t *testing.T) {
	for _, text := range []string{"taint:a/b", "label:a=b", "annotation:a=", "label:a=b=c"} {
		if got := signals(t, text)[0].String(); got != text {
			t.Errorf("%s came back as %s", text, got)
		}
	}
	for _, text := range []string{"", "a", "taint:", "taint:=x", "node:a", "taint:a b", "taint:a:NoSchedule"} {
		if s, err := ParseSignal(text); err == nil {
			t.Errorf("%q was read as %v", text, s)
		}
	}
}

func TestKeysAreOfOneKind(t *testing.T) {
	all := signals(t, "label:a", "annotation:b", "label:c=d", "taint:e")
	if diff := cmp.Diff([]string{"a", "c"}, Keys(all, Label)); diff != "" {
		t.Error(diff)
	}
}

func TestAnOrderHoldsUntilItsEnd(t *testing.T) {
	given := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	bounded := Order{Given: given, Until: given.Add(time.Minute), Reason: "disk"}
	for after, want := range map[time.Duration]bool{0: true, 59 * time.Second: true, time.Minute: false, time.Hour: false} {
		if got := bounded.InForce(given.Add(after)); got != want {
			t.Errorf("after %s: in force %v", after, got)
		}
	}
	if forever := (Order{Given: given}); !forever.InForce(given.Add(1000 * time.Hour)) {
		t.Error("an order without an end has ended")
	}
	if got, want := bounded.String(), "ebb drain node: disk (until 2026-01-01T00:01:00Z)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
