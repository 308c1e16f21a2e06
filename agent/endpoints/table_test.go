package endpoints

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/service"
)

// decision is one row of the table that says what kube-proxy selects: named by
// what is given, in its words. C and L are the policies, internal first; ext:
// reachable from outside. "-" is a set that is not used.
type decision struct {
	row, eps           string
	internal, external service.Policy
	ext                bool
	cluster, local     string
	hasAny             bool
	// clusterIP and outside are the verdicts that follow.
	clusterIP, outside Verdict
}

const (
	policyC = service.Cluster
	policyL = service.Local
)

func decisions() []decision {
	return []decision{
		{"Lr, Rr | C | C", "Lr Rr", policyC, policyC, true, "Lr Rr", "-", true, Forward, Forward},
		{"Lr, Rr without hints | L | not ext", "Lr Rr", policyL, policyC, false, "-", "Lr", true, Forward, Forward},
		{"Rr only | L | not ext: ClusterIP drops", "Rr", policyL, policyC, false, "-", "", true, Drop, Drop},
		{"Rr only | L | C, ext: ClusterIP drops, external works", "Rr", policyL, policyC, true, "Rr", "", true, Drop, Forward},
		{"Rr only | C | L, ext: external drops, ClusterIP works", "Rr", policyC, policyL, true, "Rr", "", true, Forward, Drop},
		{"Rr only | C | L, not ext", "Rr", policyC, policyL, false, "Rr", "-", true, Forward, Forward},
		{"Lst, Rst only | C | C", "Lst Rst", policyC, policyC, true, "Lst Rst", "-", true, Forward, Forward},
		{"Lst, Rr | C | L, ext", "Lst Rr", policyC, policyL, true, "Rr", "Lst", true, Forward, Forward},
		{"Lr, Lst | C | L", "Lr Lst", policyC, policyL, true, "Lr", "Lr", true, Forward, Forward},
		{"Lr, Lst | L | L", "Lr Lst", policyL, policyL, true, "Lr", "Lr", true, Forward, Forward},
		{"Lr, Rst | C | C", "Lr Rst", policyC, policyC, true, "Lr", "-", true, Forward, Forward},
		{"Lst alone | C | L, ext", "Lst", policyC, policyL, true, "Lst", "Lst", true, Forward, Forward},
		{"Lst, no Rr | C | L, ext", "Lst Rst", policyC, policyL, true, "Lst Rst", "Lst", true, Forward, Forward},
		{"Rst only | C | L, ext: external drops", "Rst", policyC, policyL, true, "Rst", "", true, Forward, Drop},

		{"zone hints all, some for Z | C | C", "Lr/z=b Rr/z=a,b Rr2/z=a", policyC, policyC, true, "Rr Rr2", "-", true, Forward, Forward},
		{"zone hints all, none for Z | C | C", "Lr/z=b Rr/z=c", policyC, policyC, true, "Lr Rr", "-", true, Forward, Forward},
		{"zone hints, one ready ep un-hinted | C | C", "Lr/z=b Rr/z=a Rr2", policyC, policyC, true, "Lr Rr Rr2", "-", true, Forward, Forward},
		{"zone hints, an ep that is not ready is un-hinted | C | C", "Lr/z=b Rr/z=a Rst Rx", policyC, policyC, true, "Rr", "-", true, Forward, Forward},
		{"zone hints, the only Z-hinted ep is not ready | C | C", "Lr/z=b Rr/z=b Lst/z=a", policyC, policyC, true, "Lr Rr", "-", true, Forward, Forward},
		{"zone hints, eTP L", "Lr/z=b Rr/z=a", policyC, policyL, true, "Rr", "Lr", true, Forward, Forward},
		{"zone hints, iTP L and eTP L", "Lr/z=b Rr/z=a", policyL, policyL, true, "Rr", "Lr", true, Forward, Forward},
		{"zone hints, none ready: they stand in whatever the hints", "Lst/z=b Rst/z=a", policyC, policyC, true, "Lst Rst", "-", true, Forward, Forward},
		{"node hints all, some for N | C | C", "Lr/n=there Rr/n=here Rr2/n=there,here", policyC, policyC, true, "Rr Rr2", "-", true, Forward, Forward},
		{"node hints win over zone hints | C | C", "Lr/n=here/z=b Rr/n=there/z=a", policyC, policyC, true, "Lr", "-", true, Forward, Forward},
		{"node hints all, none for N, zone hints all incl. Z | C | C", "Lr/n=x/z=a Rr/n=y/z=b", policyC, policyC, true, "Lr", "-", true, Forward, Forward},
		{"node hints missing on one, zone hints ok | C | C", "Lr/n=here/z=b Rr/z=a", policyC, policyC, true, "Rr", "-", true, Forward, Forward},
		{"hints exclude a local ep, eTP L | C | L, ext", "Lr/n=there Rr/n=here", policyC, policyL, true, "Rr", "Lr", true, Forward, Forward},
		{"being on N is no hint for N | C | C", "Lr/n=there Rr/n=x", policyC, policyC, true, "Lr Rr", "-", true, Forward, Forward},

		{"hints of one family are not those of the other | C | C", "Lr/z=b Rr/z=a Lr6 Rr6/z=a", policyC, policyC, true, "Rr Lr6 Rr6", "-", true, Forward, Forward},
		{"families may be in different modes | C | C", "Lr/z=b Rr/z=a Lr6/n=here Rr6/n=there", policyC, policyC, true, "Rr Lr6", "-", true, Forward, Forward},
	}
}

// anyPolicy are the rows where policies make no difference.
func anyPolicy() []decision {
	var rows []decision
	for _, given := range []struct{ row, eps string }{
		{"Lx, Rx only, not serving", "Lx Rx"}, {"serving, neither ready nor terminating", "Ls"}, {"none", ""},
	} {
		for i := range 8 {
			d := decision{eps: given.eps, clusterIP: Reject, outside: Reject,
				internal: service.Policy(i & 1), external: service.Policy(i >> 1 & 1), ext: i>>2 == 1}
			d.row = fmt.Sprintf("%s | policies %v %v, ext %v", given.row, d.internal, d.external, d.ext)
			rows = append(rows, d)
		}
	}
	return rows
}

func TestDecisionTable(t *testing.T) {
	for _, tc := range append(decisions(), anyPolicy()...) {
		t.Run(tc.row, func(t *testing.T) {
			got := Choose(inputs(pick(tc.eps), tc.internal, tc.external, tc.ext))
			want := []string{used(tc.cluster), used(tc.local)}
			if diff := cmp.Diff(want, []string{names(got.Cluster), names(got.Local)}); diff != "" {
				t.Errorf("cluster, local (-want +got):\n%s", diff)
			}
			if got.HasAny(true) != tc.hasAny {
				t.Errorf("has any: %v, want %v", got.HasAny(true), tc.hasAny)
			}
			if v := got.Verdict(Internal, true); v != tc.clusterIP {
				t.Errorf("ClusterIP: %v, want %v", v, tc.clusterIP)
			}
			if v := got.Verdict(External, true); tc.ext && v != tc.outside {
				t.Errorf("external frontends: %v, want %v", v, tc.outside)
			}
		})
	}
}

// used is the content of a set; one that is not used is empty.
func used(set string) string {
	if set == "-" {
		return ""
	}
	return set
}

func TestANodeWithoutZoneTakesAllReadyEndpoints(t *testing.T) {
	in := inputs(pick("Lr/z=a Rr/z=b"), policyC, policyC, true)
	in.Zone = ""
	if got := names(Choose(in).Cluster); got != "Lr Rr" {
		t.Errorf("cluster set: %q", got)
	}
}
