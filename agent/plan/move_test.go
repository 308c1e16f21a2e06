package plan_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/plan"
	"github.com/ebb-lb/ebb/agent/service"
)

// A pod that moves with its address is another backend from then on, and its
// connections are told. Where the node of one is not known nothing has moved.
func TestABackendThatMovesWithItsAddressIsAnotherOne(t *testing.T) {
	const here = "here"
	pod := netip.MustParseAddrPort("10.1.0.7:8080")
	view := func(node string) service.View {
		key := service.PortKey{Name: "http", Proto: service.TCP}
		return service.View{
			Name: service.Name{Namespace: "shop", Name: "web"},
			Service: &service.Service{
				Name:       service.Name{Namespace: "shop", Name: "web"},
				Ports:      []service.Port{{PortKey: key, Port: 80}},
				ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")},
			},
			Endpoints: map[service.PortKey][]service.Endpoint{key: {{Addr: pod, NodeName: node, Ready: true, Serving: true}}},
		}
	}
	for _, tc := range []struct {
		name, from, to string
		moved          bool
	}{
		{"it leaves", here, "there", true},
		{"it comes", "there", here, true},
		{"between others", "there", "elsewhere", false},
		{"it is named later", "", here, false},
		{"its name is lost", here, "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			now := time.Unix(1000, 0)
			p := plan.New(roomy, plan.State{})
			input := func(node string) plan.Input {
				return plan.Input{Services: []service.View{view(node)}, NodeName: here, Full: true}
			}
			first, failed := p.Plan(now, input(tc.from))
			if len(failed) > 0 || len(first.PutBackends) != 1 {
				t.Fatalf("the first plan is %s, failed %v", first, failed)
			}
			second, failed := p.Plan(now, input(tc.to))
			if len(failed) > 0 {
				t.Fatal(failed)
			}
			var moved []bool
			for _, r := range second.RetireBackends {
				moved = append(moved, r.Backend.Moved)
			}
			want := []bool(nil)
			if tc.moved {
				want = []bool{true}
			}
			if diff := cmp.Diff(want, moved); diff != "" {
				t.Errorf("backends that go, by whether they have moved (-want +got):\n%s\n%s", diff, second)
			}
		})
	}
}
