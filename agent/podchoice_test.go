package agent

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/config"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/loader"
)

// Who detects pods by their devices has pods' links, and no ranges.
func TestThePodsDevicesAreTheirLinksUnlessOthersAreNamed(t *testing.T) {
	ranges := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
	both := config.PodLinks{Bridge: "cni0", Prefix: "cali"}
	named := both
	named.Patterns = []string{"tap*"}
	tests := []struct {
		mode   string
		links  config.PodLinks
		want   loader.PodChoice
		ranges []netip.Prefix
	}{
		{config.DetectClusterCIDR, both, loader.PodChoice{}, ranges},
		{config.DetectClusterCIDR, config.PodLinks{Auto: true}, loader.PodChoice{Auto: true}, ranges},
		{config.DetectBridge, both, loader.PodChoice{Auto: true, Bridge: "cni0"}, nil},
		{config.DetectPrefix, both, loader.PodChoice{Auto: true, Prefix: "cali"}, nil},
		{config.DetectPrefix, named, loader.PodChoice{Patterns: []string{"tap*"}, Prefix: "cali"}, nil},
	}
	for _, tc := range tests {
		cfg := config.Config{DetectLocal: tc.mode, PodLinks: tc.links, ClusterCIDRs: ranges}
		if d := cmp.Diff(tc.want, podChoice(cfg)); d != "" {
			t.Errorf("%s: %s", tc.mode, d)
		}
		got := podCIDRs(cfg)(service.Node{PodCIDRs: ranges})
		if !cmp.Equal(tc.ranges, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })) {
			t.Errorf("%s: ranges %v, want %v", tc.mode, got, tc.ranges)
		}
	}
}
