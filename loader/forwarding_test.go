package loader

import (
	"os"
	"strings"
	"testing"
)

func TestUplinksThatWillDropPacketsAreNamed(t *testing.T) {
	tests := map[string]struct {
		settings map[string]string
		setUp    func(*testing.T)
		want     []string // words of each warning
	}{
		"all is well": {},
		"no forwarding at all": {
			settings: map[string]string{"ipv4/ip_forward": "0", "ipv6/conf/all/forwarding": "0"},
			want:     []string{"IPv4 forwarding is off", "IPv6 forwarding is off"},
		},
		"a device that does not forward": {
			settings: map[string]string{"ipv4/conf/up0/forwarding": "0", "ipv6/conf/up0/forwarding": "0"},
			want:     []string{"IPv4 forwarding is off", "(net.ipv6.conf.up0.forwarding)"},
		},
		"strict, but the way to clients": {settings: map[string]string{"ipv4/conf/up0/rp_filter": "1"}},
		"strict, and the way is another": {
			settings: map[string]string{"ipv4/conf/up0/rp_filter": "1", "ipv4/conf/all/rp_filter": "0"},
			setUp:    otherDefault,
			want:     []string{"reverse path filter is strict"},
		},
		"strict for all": {
			settings: map[string]string{"ipv4/conf/up0/rp_filter": "0", "ipv4/conf/all/rp_filter": "1"},
			setUp:    otherDefault,
			want:     []string{"reverse path filter is strict"},
		},
		"loose for the device": {
			settings: map[string]string{"ipv4/conf/up0/rp_filter": "2", "ipv4/conf/all/rp_filter": "1"},
			setUp:    otherDefault,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			newNetns(t)
			up := addVeth(t, "up0")
			addAddr(t, up, "192.0.2.1/24")
			addAddr(t, up, "2001:db8::1/64")
			set(t, map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1",
				"ipv4/conf/all/rp_filter": "0", "ipv4/conf/up0/rp_filter": "0"})
			if tc.setUp == nil {
				addRoute(t, up, "0.0.0.0/0")
			} else {
				tc.setUp(t)
			}
			set(t, tc.settings)
			got, err := DeviceWarnings([]string{"up0", "absent"})
			must(t, "look", err)
			if len(got) != len(tc.want) {
				t.Fatalf("got %v, want %d warnings", got, len(tc.want))
			}
			for i, w := range got {
				if w.Device != "up0" || !strings.Contains(w.Warning, tc.want[i]) {
					t.Errorf("got %v, want %q about up0", w, tc.want[i])
				}
			}
		})
	}
}

func otherDefault(t *testing.T) {
	t.Helper()
	addRoute(t, addVeth(t, "up1"), "0.0.0.0/0")
}

func set(t *testing.T, settings map[string]string) {
	t.Helper()
	// What switches all devices comes first.
	for _, all := range []bool{true, false} {
		for path, value := range settings {
			if strings.Contains(path, "/up0/") != all {
				must(t, "set "+path, os.WriteFile("/proc/sys/net/"+path, []byte(value), 0o644))
			}
		}
	}
}
