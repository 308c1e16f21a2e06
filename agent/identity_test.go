package agent

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ebb-lb/ebb/agent/config"
	"github.com/ebb-lb/ebb/agent/reconcile"
)

func TestANodeThatIsNotThisMachineIsSaid(t *testing.T) {
	mine, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	own := map[netip.Addr]bool{mine: true}
	for _, tc := range []struct {
		name   string
		chosen []netip.Addr
		node   reconcile.NodeNet
		want   string // part of it; empty: nothing is wrong
	}{
		{"this machine", nil, reconcile.NodeNet{Object: true, Addrs: []netip.Addr{mine}}, ""},
		{"one address is enough", nil, reconcile.NodeNet{Object: true, Addrs: []netip.Addr{other, mine}}, ""},
		{"nobody", nil, reconcile.NodeNet{}, `no Node object "n1"`},
		{"another node", nil, reconcile.NodeNet{Object: true, Addrs: []netip.Addr{other}}, "(192.0.2.2) is on this machine"},
		{"no addresses", nil, reconcile.NodeNet{Object: true}, "has no addresses"},
		{"no object, but addresses", []netip.Addr{mine}, reconcile.NodeNet{Addrs: []netip.Addr{mine}}, ""},
		{"addresses of another", []netip.Addr{other}, reconcile.NodeNet{Object: true, Addrs: []netip.Addr{other}}, "--node-addresses 192.0.2.2"},
	} {
		got := identityProblem(config.Config{NodeName: "n1", NodeAddrs: tc.chosen}, tc.node, own)
		if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q in it", tc.name, got, tc.want)
		}
	}
}
