package metrics

import (
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ebb-lb/ebb/agent/version"
	"github.com/ebb-lb/ebb/maps"
)

func TestTheBuildIsAMetric(t *testing.T) {
	r := prometheus.NewRegistry()
	RegisterBuild(r, version.Build{Version: "v1.2.3", Commit: "abc", Go: "go1.26.0"})
	families, err := r.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "ebb_build_info" {
		t.Fatalf("%v, %v", families, err)
	}
	m := families[0].GetMetric()[0]
	got := map[string]string{}
	for _, l := range m.GetLabel() {
		got[l.GetName()] = l.GetValue()
	}
	want := map[string]string{"version": "v1.2.3", "commit": "abc", "goversion": "go1.26.0", "map_layout": strconv.Itoa(maps.LayoutVersion)}
	if diff := cmp.Diff(want, got); diff != "" || m.GetGauge().GetValue() != 1 {
		t.Errorf("value %v, labels (-want +got):\n%s", m.GetGauge().GetValue(), diff)
	}
}
