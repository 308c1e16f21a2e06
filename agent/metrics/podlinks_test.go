package metrics

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func TestPodsLinksAreCountedByState(t *testing.T) {
	reg := prometheus.NewRegistry()
	RegisterPodLinks(reg, func() (int, int) { return 7, 2 })
	want := []string{`ebb_pod_links{state="attached"} 7`, `ebb_pod_links{state="failing"} 2`}
	if diff := cmp.Diff(want, samples(gather(reg))); diff != "" {
		t.Error(diff)
	}
}
