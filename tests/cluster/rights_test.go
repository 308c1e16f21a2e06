package cluster

import (
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
)

// documented are the rights docs/semantics.md lists, as "group/resource".
var documented = map[string][]string{
	"/services":                       {"list", "watch"},
	"discovery.k8s.io/endpointslices": {"list", "watch"},
	"networking.k8s.io/servicecidrs":  {"list", "watch"},
	"/nodes":                          {"get", "list", "watch"},
	"/events":                         {"create", "patch"},
	"events.k8s.io/events":            {"create", "patch"},
}

func TestTheManifestGrantsTheDocumentedRights(t *testing.T) {
	objects, err := readManifest(manifest)
	if err != nil {
		t.Fatal(err)
	}
	granted := map[string][]string{}
	for _, o := range objects {
		role, ok := o.(*rbacv1.ClusterRole)
		if !ok {
			continue
		}
		for _, r := range role.Rules {
			for _, group := range r.APIGroups {
				for _, resource := range r.Resources {
					granted[group+"/"+resource] = r.Verbs
				}
			}
		}
	}
	if diff := cmp.Diff(documented, granted); diff != "" {
		t.Errorf("rights (-documented +granted):\n%s", diff)
	}
}

func TestAgentsAskForNothingTheyMayNotHave(t *testing.T) {
	w := setup(t)
	s := w.service(nil)
	w.leadsTo("an agent at work", httpPort, addrs(s.cluster4), a1, a2, b1)
	requests, err := w.plane.Requests()
	w.must(err)
	used := map[string][]string{}
	for _, r := range requests {
		if r.Early {
			continue
		}
		what := r.Group + "/" + r.Resource
		if r.Code == http.StatusForbidden || !slices.Contains(documented[what], r.Verb) {
			t.Errorf("agents ask to %s %s, answer %d", r.Verb, what, r.Code)
		}
		if !slices.Contains(used[what], r.Verb) {
			used[what] = append(used[what], r.Verb)
		}
	}
	t.Logf("used: %v", used)
	for _, what := range []string{"/services", "discovery.k8s.io/endpointslices", "networking.k8s.io/servicecidrs", "/nodes"} {
		if !slices.Contains(used[what], "watch") {
			t.Errorf("no agent watches %s: the requests are not those of agents", what)
		}
	}
}
