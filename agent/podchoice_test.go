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
	asked := both
	asked.Demand = true
	named := both
	named.Patterns = []string{"tap*"}
	tests := []struct {
		mode   string
		links  config.PodLinks
		want   loader.PodChoice
		ranges []netip.Prefix
	}{
		{config.DetectClusterCIDR, both, loader.PodChoice{}, ranges},
		{config.DetectBridge, config.PodLinks{Bridge: "cni0"}, loader.PodChoice{Bridge: "cni0"}, nil},
		{config.DetectClusterCIDR, config.PodLinks{Auto: true}, loader.PodChoice{Auto: true}, ranges},
		{config.DetectBridge, asked, loader.PodChoice{Auto: true, Bridge: "cni0"}, nil},
		{config.DetectPrefix, asked, loader.PodChoice{Auto: true, Prefix: "cali"}, nil},
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

func TestPodsLinksAreOnDemandWhereSocketsAreGivenBackends(t *testing.T) {
	demand := config.PodLinks{Demand: true}
	tests := []struct {
		eastWest string
		links    config.PodLinks
		want     loader.PodChoice
	}{
		{config.EastWestSocket, demand, loader.PodChoice{Auto: true, OnDemand: true}},
		{config.EastWestSocket, config.PodLinks{Demand: true, Patterns: []string{"tap*"}}, loader.PodChoice{Patterns: []string{"tap*"}, OnDemand: true}},
		{config.EastWestPacket, demand, loader.PodChoice{Auto: true}},
		{config.EastWestOff, demand, loader.PodChoice{}},
		{config.EastWestOff, config.PodLinks{Auto: true}, loader.PodChoice{Auto: true}},
		{config.EastWestSocket, config.PodLinks{}, loader.PodChoice{}},
	}
	for _, tc := range tests {
		cfg := config.Config{DetectLocal: config.DetectClusterCIDR, EastWest: tc.eastWest, PodLinks: tc.links}
		if d := cmp.Diff(tc.want, podChoice(cfg)); d != "" {
			t.Errorf("%s, %+v: %s", tc.eastWest, tc.links, d)
		}
	}
}
