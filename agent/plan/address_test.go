package plan_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/plan"
	"github.com/ebb-lb/ebb/agent/plan/plantest"
	"github.com/ebb-lb/ebb/agent/service"
)

// on is a service with a ClusterIP and a load balancer's address; empty: none.
func on(name, clusterIP, vip string, port uint16) service.View {
	s := &service.Service{
		Name:       service.Name{Namespace: "shop", Name: name},
		ClusterIPs: []netip.Addr{netip.MustParseAddr(clusterIP)},
		Ports:      []service.Port{{PortKey: service.PortKey{Proto: service.TCP}, Port: port, NodePort: 30000 + port}},
	}
	if vip != "" {
		s.LoadBalancerIPs = []netip.Addr{netip.MustParseAddr(vip)}
	}
	return service.View{Name: s.Name, Service: s}
}

func gone(name string) service.View {
	return service.View{Name: service.Name{Namespace: "shop", Name: name}}
}

// Load balancers may give one address to several services, on different ports.
func TestAnAddressIsKnownAsLongAsAServiceHasIt(t *testing.T) {
	k := plantest.NewKernel(roomy)
	p := plan.New(roomy, k.State())
	for _, tc := range []struct {
		name     string
		services []service.View
		want     []string // writes to addresses
	}{
		{"two share one", []service.View{on("a", "10.96.0.1", "203.0.113.1", 80), on("b", "10.96.0.2", "203.0.113.1", 81)},
			[]string{"put address 10.96.0.1 cluster-ip for shop/a", "put address 10.96.0.2 cluster-ip for shop/b", "put address 203.0.113.1 external for shop/a"}},
		{"nothing changes", []service.View{on("a", "10.96.0.1", "203.0.113.1", 80)}, nil},
		{"one moves", []service.View{on("a", "10.96.0.1", "203.0.113.9", 80)},
			[]string{"put address 203.0.113.9 external for shop/a"}},
		{"the other goes", []service.View{gone("b")},
			[]string{"delete address 10.96.0.2 for shop/b", "delete address 203.0.113.1 for shop/b"}},
		{"a ClusterIP is another's external address too", []service.View{on("b", "10.96.0.2", "10.96.0.1", 81)},
			[]string{"put address 10.96.0.1 cluster-ip,external for shop/a", "put address 10.96.0.2 cluster-ip for shop/b"}},
		{"one takes what another gives up", []service.View{gone("a"), on("b", "10.96.0.2", "203.0.113.9", 81)},
			[]string{"delete address 10.96.0.1 for shop/b"}},
	} {
		made, _ := p.Plan(k.Now, plan.Input{Services: tc.services, NodePortAddrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Live: k.Live})
		k.Run(made, -1)
		var got []string
		for line := range strings.Lines(made.String()) {
			if strings.Contains(line, " address ") {
				got = append(got, strings.TrimSpace(line))
			}
		}
		slices.Sort(got)
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, d)
		}
		if v := k.Violations(); len(v) > 0 {
			t.Fatal(v)
		}
	}
}
