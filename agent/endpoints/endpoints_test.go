package endpoints

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/service"
)

const (
	node = "here"
	zone = "a"
)

// The endpoints the tables speak of: L runs on this node, R elsewhere; ready,
// serving and terminating, not serving. The suffix 6 is the other family.
var known = map[string]service.Endpoint{
	"Lr":     {Addr: addr("10.0.0.1:80"), NodeName: node, Ready: true, Serving: true},
	"Rr":     {Addr: addr("10.0.1.1:80"), NodeName: "there", Ready: true, Serving: true},
	"Ur":     {Addr: addr("10.0.2.1:80"), Ready: true, Serving: true},
	"Lst":    {Addr: addr("10.0.0.2:80"), NodeName: node, Serving: true, Terminating: true},
	"Rst":    {Addr: addr("10.0.1.2:80"), NodeName: "there", Serving: true, Terminating: true},
	"Lx":     {Addr: addr("10.0.0.3:80"), NodeName: node},
	"Rx":     {Addr: addr("10.0.1.3:80"), NodeName: "there", Terminating: true},
	"Ls":     {Addr: addr("10.0.0.4:80"), NodeName: node, Serving: true},
	"Lrt":    {Addr: addr("10.0.0.5:80"), NodeName: node, Ready: true, Terminating: true},
	"Rr6":    {Addr: addr("[fd00::1]:80"), NodeName: "there", Ready: true, Serving: true},
	"Rst6":   {Addr: addr("[fd00::2]:80"), NodeName: "there", Serving: true, Terminating: true},
	"Lst6":   {Addr: addr("[fd00::3]:80"), NodeName: node, Serving: true, Terminating: true},
	"Rr2":    {Addr: addr("10.0.1.6:80"), NodeName: "there", Ready: true, Serving: true},
	"Lr6":    {Addr: addr("[fd00::5]:80"), NodeName: node, Ready: true, Serving: true},
	"Rr62":   {Addr: addr("[fd00::6]:80"), NodeName: "there", Ready: true, Serving: true},
	"Lt":     {Addr: addr("10.0.0.7:80"), NodeName: node, Terminating: true},
	"Lt@Lrt": {Addr: addr("10.0.0.5:81"), NodeName: node, Terminating: true},
	"Lst62":  {Addr: addr("[fd00::4]:80"), NodeName: node, Serving: true, Terminating: true},
}

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// pick returns the endpoints of these names. Hints follow a name: Rr/z=a,b/n=x
// is hinted for the zones a and b and the node x.
func pick(names string) []service.Endpoint {
	var eps []service.Endpoint
	for _, n := range strings.Fields(names) {
		name, hints, _ := strings.Cut(n, "/")
		e := known[name]
		for h := range strings.SplitSeq(hints, "/") {
			if zones, ok := strings.CutPrefix(h, "z="); ok {
				e.ZoneHints = service.NewNameSet(strings.Split(zones, ",")...)
			}
			if nodes, ok := strings.CutPrefix(h, "n="); ok {
				e.NodeHints = service.NewNameSet(strings.Split(nodes, ",")...)
			}
		}
		eps = append(eps, e)
	}
	return eps
}

// inputs are those of a service port with these policies, reachable from
// outside or not.
func inputs(eps []service.Endpoint, internal, external service.Policy, ext bool) Inputs {
	in := Inputs{
		Service:  &service.Service{InternalPolicy: internal, ExternalPolicy: external},
		Port:     service.Port{Port: 80},
		NodeName: node, Zone: zone, Endpoints: eps,
	}
	if ext {
		in.Port.NodePort = 30080
	}
	return in
}

func names(eps []service.Endpoint) string {
	var out []string
	for _, e := range eps {
		for n, k := range known {
			if k.Addr == e.Addr {
				out = append(out, n)
			}
		}
	}
	return strings.Join(out, " ")
}

func TestChoose(t *testing.T) {
	const C, L = service.Cluster, service.Local
	tests := []struct {
		name               string
		eps                string
		internal, external service.Policy
		ext                bool
		cluster, local     string
	}{
		{"policies Cluster: all ready ones, no local set", "Lr Rr", C, C, true, "Lr Rr", ""},
		{"internal Local, not reachable from outside: no cluster set", "Lr Rr", L, C, false, "", "Lr"},
		{"internal Local, only remote ones: both sets are empty", "Rr", L, C, false, "", ""},
		{"internal Local, reachable from outside: the cluster set exists", "Rr", L, C, true, "Rr", ""},
		{"external Local, only remote ones: the cluster set remains for the node's own clients", "Rr", C, L, true, "Rr", ""},
		{"external Local, not reachable from outside: the policy is ignored", "Lr Rr", C, L, false, "Lr Rr", ""},
		{"all terminating: they stand in", "Lst Rst", C, C, true, "Lst Rst", ""},
		{"the local stand-in serves although a remote one is ready", "Lst Rr", C, L, true, "Rr", "Lst"},
		{"a ready local one keeps the terminating one out", "Lr Lst", L, L, true, "Lr", "Lr"},
		{"a ready local one keeps a remote terminating one out", "Lr Rst", C, C, true, "Lr", ""},
		{"one local stand-in is in both sets", "Lst Rst", C, L, true, "Lst Rst", "Lst"},
		{"stand-ins of the local set are never remote", "Rst", C, L, true, "Rst", ""},
		{"not serving: never chosen", "Lx Rx", C, L, true, "", ""},
		{"serving but neither ready nor terminating: never chosen", "Ls", C, L, true, "", ""},
		{"no endpoint: nothing is chosen", "", L, L, true, "", ""},
		{"an endpoint without a node is remote", "Ur", C, L, true, "Ur", ""},
		{"ready and terminating (not-ready addresses published): it is ready", "Lrt Lst", C, L, true, "Lrt", "Lrt"},
		{"families fall back each for itself", "Lr Lst Rst6", C, C, true, "Lr Rst6", ""},
		{"families fall back each for itself, locally too", "Lst Rr Lst6 Rr6 Lst62", C, L, true, "Rr Rr6", "Lst Lst6 Lst62"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got := Choose(inputs(pick(tc.eps), tc.internal, tc.external, tc.ext))
			want := []string{tc.cluster, tc.local, tc.eps}
			if diff := cmp.Diff(want, []string{names(got.Cluster), names(got.Local), names(got.All)}); diff != "" {
				t.Errorf("cluster, local, all (-want +got):\n%s", diff)
			}
		})
	}
}

func TestChooseReachability(t *testing.T) {
	vip := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	tests := []struct {
		name string
		svc  service.Service
		want string
	}{
		{"an external IP makes the policy count", service.Service{ExternalIPs: vip}, "Lr"},
		{"a load balancer IP makes the policy count", service.Service{LoadBalancerIPs: vip}, "Lr"},
		{"without either it does not", service.Service{}, ""},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			tc.svc.ExternalPolicy = service.Local
			got := Choose(Inputs{Service: &tc.svc, Port: service.Port{Port: 80}, Endpoints: pick("Lr Rr"), NodeName: node})
			if names(got.Local) != tc.want {
				t.Errorf("local set: got %q, want %q", names(got.Local), tc.want)
			}
		})
	}
}

func TestChooseLeavesItsInputAlone(t *testing.T) {
	eps := pick("Lr Lst Rst6/z=a")
	before := slices.Clone(eps)
	got := Choose(inputs(eps, service.Cluster, service.Local, true))
	clear(got.All)
	clear(got.Cluster)
	clear(got.Local)
	if diff := cmp.Diff(before, eps, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("endpoints changed (-before +after):\n%s", diff)
	}
}

func TestDatagramsLeaveWhatDoesNotServeWhileOthersDo(t *testing.T) {
	at := func(addr string, ready, serving bool) service.Endpoint {
		return service.Endpoint{Addr: netip.MustParseAddrPort(addr), Ready: ready, Serving: serving}
	}
	for _, tc := range []struct {
		name   string
		it     service.Endpoint
		others []service.Endpoint
		want   bool
	}{
		{"it serves", at("10.1.0.1:53", false, true), []service.Endpoint{at("10.1.0.2:53", true, true)}, false},
		{"another serves", at("10.1.0.1:53", false, false), []service.Endpoint{at("10.1.0.2:53", true, true)}, true},
		{"another serves and terminates", at("10.1.0.1:53", false, false), []service.Endpoint{at("10.1.0.2:53", false, true)}, true},
		{"nobody does", at("10.1.0.1:53", false, false), []service.Endpoint{at("10.1.0.2:53", true, false)}, false},
		{"it is alone", at("10.1.0.1:53", false, false), nil, false},
		{"one of the other family serves", at("10.1.0.1:53", false, false), []service.Endpoint{at("[fd00::2]:53", true, true)}, false},
		{"it is ready all the same", at("10.1.0.1:53", true, false), []service.Endpoint{at("10.1.0.2:53", true, true)}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := Choice{All: append([]service.Endpoint{tc.it}, tc.others...)}
			if got := c.Leaves(tc.it); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}
