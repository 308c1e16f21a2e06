package endpoints

import (
	"testing"

	"github.com/ebb-lb/ebb/agent/service"
)

// TestVerdictsOfFrontends has a row per frontend and policy, a column per state
// of the endpoints: none that serves, only remote ones, a local and a remote one.
func TestVerdictsOfFrontends(t *testing.T) {
	tests := []struct {
		name               string
		class              Class
		internal, external service.Policy
		none, remote, both Verdict
	}{
		{"ClusterIP, iTP C", Internal, policyC, policyL, Reject, Forward, Forward},
		{"ClusterIP, iTP L", Internal, policyL, policyC, Reject, Drop, Forward},
		{"external, eTP C", External, policyL, policyC, Reject, Forward, Forward},
		{"external, eTP C, client inside", Inside, policyL, policyC, Reject, Forward, Forward},
		{"external, eTP L, client inside", Inside, policyL, policyL, Reject, Forward, Forward},
		{"external, eTP L, client outside", External, policyC, policyL, Reject, Drop, Forward},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			for eps, want := range map[string]Verdict{"Lx Rx": tc.none, "Rr": tc.remote, "Rst Lx": tc.remote, "Lr Rr": tc.both, "Lst Rr": tc.both} {
				got := Choose(inputs(pick(eps), tc.internal, tc.external, true)).Verdict(tc.class, true)
				if got != want {
					t.Errorf("%s: %v, want %v", eps, got, want)
				}
			}
		})
	}
}

func TestVerdictsAreOfOneFamily(t *testing.T) {
	c := Choose(inputs(pick("Lr Rr6"), policyL, policyC, true))
	if v4, v6 := c.Verdict(Internal, true), c.Verdict(Internal, false); v4 != Forward || v6 != Drop {
		t.Errorf("internal: IPv4 %v, IPv6 %v", v4, v6)
	}
	c = Choose(inputs(pick("Lr Rx"), policyC, policyC, true))
	if v6 := c.Verdict(External, false); v6 != Reject {
		t.Errorf("a family without endpoints: %v", v6)
	}
}

// TestOriginsAndFrontends is who gets which set: one local and one remote ready
// endpoint, an origin and a frontend per row, a policy per column.
func TestOriginsAndFrontends(t *testing.T) {
	const all, loc = "Lr Rr", "Lr"
	tests := []struct {
		name                            string
		class                           Class
		byDefault, externalL, internalL string
	}{
		{"pod to ClusterIP", Internal, all, all, loc},
		{"pod to node port or load balancer", Inside, all, all, all},
		{"pod to node port or load balancer, pods not recognised", External, all, loc, all},
		{"node to ClusterIP", Internal, all, all, loc},
		{"node to node port or load balancer", Inside, all, all, all},
		{"external to ClusterIP", Internal, all, all, loc},
		{"external to node port or load balancer", External, all, loc, all},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got := func(internal, external service.Policy) string {
				c := Choose(inputs(pick(all), internal, external, true))
				return names(c.Candidates(tc.class, true))
			}
			if d, e, i := got(policyC, policyC), got(policyC, policyL), got(policyL, policyC); d != tc.byDefault || e != tc.externalL || i != tc.internalL {
				t.Errorf("default %q, external Local %q, internal Local %q; want %q, %q, %q", d, e, i, tc.byDefault, tc.externalL, tc.internalL)
			}
		})
	}
}

func TestVerdictsHaveNames(t *testing.T) {
	for v, want := range map[Verdict]string{Forward: "forward", Drop: "drop", Reject: "reject", 9: "verdict 9"} {
		if got := v.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
