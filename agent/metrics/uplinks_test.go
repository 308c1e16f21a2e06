package metrics

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func TestEachUplinkTellsWhetherItIsServed(t *testing.T) {
	reg := prometheus.NewRegistry()
	RegisterUplinks(reg, func() map[string]bool { return map[string]bool{"eth0": true, "eth1": false} })
	want := []string{`ebb_uplink_served{device="eth0"} 1`, `ebb_uplink_served{device="eth1"} 0`}
	if diff := cmp.Diff(want, samples(gather(reg))); diff != "" {
		t.Error(diff)
	}
}
