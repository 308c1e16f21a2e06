package maps

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestWhatCannotBeAnEntryIsRefused(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")
	ap := netip.AddrPortFrom(v4, 80)
	name := ServicePort{Namespace: "default", Service: "web", Proto: TCP}
	tests := []struct {
		name string
		err  error
		want string // part of the error; empty: accepted
	}{
		{"frontend", Frontend{v4, 80, TCP}.Validate(), ""},
		{"frontend without address", Frontend{Port: 80, Proto: TCP}.Validate(), "no address"},
		{"frontend with v4-mapped address", Frontend{netip.AddrFrom16(v4.As16()), 80, TCP}.Validate(), "v4-mapped"},
		{"frontend with zone", Frontend{netip.MustParseAddr("fe80::1%eth0"), 80, TCP}.Validate(), "zone"},
		{"frontend with port 0", Frontend{v4, 0, TCP}.Validate(), "port 0"},
		{"frontend of ICMP", Frontend{v4, 80, 1}.Validate(), "protocol(1)"},
		{"longest name", ServicePort{strings.Repeat("n", 63), "s", "p", UDP}.Validate(), ""},
		{"name too long", ServicePort{"n", "s", strings.Repeat("p", 64), UDP}.Validate(), "64 bytes"},
		{"name with NUL", ServicePort{"n", "a\x00b", "", UDP}.Validate(), "NUL"},
		{"service port of ICMP", ServicePort{"n", "s", "", 1}.Validate(), "protocol(1)"},
		{"unnamed port", name.Validate(), ""},
		{"backend", Backend{Addr: ap, State: Gone}.Validate(), ""},
		{"backend of unknown state", Backend{Addr: ap, State: 4}.Validate(), "state(4)"},
		{"backend without address", Backend{State: Active}.Validate(), "no address"},
		{"free backend without address", Backend{}.Validate(), ""},
		{"free backend with zone", Backend{Addr: netip.MustParseAddrPort("[fe80::1%e]:1")}.Validate(), "zone"},
		{"backend with port 0", Backend{Addr: netip.AddrPortFrom(v4, 0), State: Active}.Validate(), "port 0"},
		{"last backend", BackendID(7).Within(8), ""},
		{"backend beyond the last", BackendID(8).Within(8), "8"},
		{"last table", Table{Offset: 61, Length: 3}.Check(3, 64), ""},
		{"table beyond the end", Table{Offset: 62, Length: 3}.Check(3, 64), "ends at 65"},
		{"table that wraps around", Table{Offset: 1<<32 - 1, Length: 2}.Check(2, 64), "ends at 4294967297"},
		{"table and slots of different size", Table{Offset: 0, Length: 3}.Check(2, 64), "2 slots"},
		{"flow key without address", FlowKey{Dst: ap}.Validate(), "no address"},
		{"flow without address", Flow{Src: ap}.Validate(), "no address"},
		{"flow before time began", Flow{Src: ap, Dst: ap, Since: -time.Second}.Validate(), "-1s"},
		{"flow", Flow{Src: ap, Dst: ap}.Validate(), ""},
		{"no node address", Runtime{}.Validate(), ""},
		{"both node addresses", Runtime{SNAT4: v4, SNAT6: v6}.Validate(), ""},
		{"node addresses of the other family", Runtime{SNAT4: v6}.Validate(), "snat4"},
		{"IPv4 as node address of IPv6", Runtime{SNAT6: v4}.Validate(), "snat6"},
		{"unspecified node address", Runtime{SNAT6: netip.IPv6Unspecified()}.Validate(), "snat6"},
		{"unspecified IPv4 node address", Runtime{SNAT4: netip.IPv4Unspecified()}.Validate(), "snat4"},
		{"highest VLAN tag", Device{VLAN: 4094}.Validate(), ""},
		{"VLAN tag out of range", Device{VLAN: 4095}.Validate(), "4095"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			switch {
			case tc.want == "" && tc.err != nil:
				t.Errorf("refused: %v", tc.err)
			case tc.want != "" && tc.err == nil:
				t.Error("accepted")
			case tc.want != "" && !strings.Contains(tc.err.Error(), tc.want):
				t.Errorf("error %q does not mention %q", tc.err, tc.want)
			}
		})
	}
}
