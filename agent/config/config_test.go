package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/ebb-lb/ebb/agent/conntrack"
	"github.com/ebb-lb/ebb/agent/service"
)

func resolve(t *testing.T, args, env []string) (Config, error) {
	t.Helper()
	fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	Bind(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return Resolve(fs, env)
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ebb.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagBeatsEnvironmentBeatsFileBeatsDefault(t *testing.T) {
	file := write(t, "xdp: generic\nuplink: [eth1, eth2]\nmax-flows: 4096\n")
	tests := []struct {
		name      string
		args, env []string
		xdp       string
		uplinks   string
	}{
		{"default", nil, nil, "auto", ""},
		{"file", []string{"--config", file}, nil, "generic", "eth1,eth2"},
		{"file named by the environment", nil, []string{"EBB_CONFIG=" + file}, "generic", "eth1,eth2"},
		{"environment", []string{"--config", file}, []string{"EBB_XDP=off", "EBB_UPLINK=a,b"}, "off", "a,b"},
		{"flag", []string{"--config", file, "--xdp=native", "--uplink=x", "--uplink=y"}, []string{"EBB_XDP=off"}, "native", "x,y"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			c, err := resolve(t, tc.args, tc.env)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(c.Uplinks, ","); c.XDP != tc.xdp || got != tc.uplinks {
				t.Errorf("xdp %q and uplinks %q, want %q and %q", c.XDP, got, tc.xdp, tc.uplinks)
			}
		})
	}
	if c, err := resolve(t, []string{"--config", file}, nil); err != nil || c.Sizes.Flows != 4096 {
		t.Errorf("max-flows of the file: %d, %v", c.Sizes.Flows, err)
	}
}

func TestValuesAreReadAsTheyAreWrittenInTheFile(t *testing.T) {
	// YAML 1.1 reads a bare off as a boolean, and JSON numbers become floats.
	file := write(t, "xdp: off\nmax-slots: 4194304\nmax-flows: \"8192\"\n")
	c, err := resolve(t, []string{"--config", file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.XDP != "off" || c.Sizes.Slots != 4194304 || c.Sizes.Flows != 8192 {
		t.Errorf("xdp %q, slots %d, flows %d", c.XDP, c.Sizes.Slots, c.Sizes.Flows)
	}
}

// TestServiceLinksAreNoOptions: the kubelet tells every container about the
// Services of its namespace by variables, also about one called "ebb".
func TestServiceLinksAreNoOptions(t *testing.T) {
	links := []string{
		"EBB_SERVICE_HOST=10.96.0.7", "EBB_SERVICE_PORT=10249", "EBB_SERVICE_PORT_METRICS=10249",
		"EBB_PORT=tcp://10.96.0.7:10249", "EBB_PORT_10249_TCP=tcp://10.96.0.7:10249",
		"EBB_PORT_10249_TCP_PROTO=tcp", "EBB_PORT_10249_TCP_PORT=10249", "EBB_PORT_10249_TCP_ADDR=10.96.0.7",
		"EBB_METRICS_SERVICE_HOST=10.96.0.8", "EBB_METRICS_PORT=udp://10.96.0.8:53", "EBB_METRICS_PORT_53_UDP_ADDR=10.96.0.8",
	}
	// A Service may be called as an option is.
	for _, o := range options() {
		name := envName(o.name)
		links = append(links, name+"_SERVICE_HOST=10.96.0.9", name+"_SERVICE_PORT=80", name+"_PORT=tcp://10.96.0.9:80", name+"_PORT_80_TCP=tcp://10.96.0.9:80")
	}
	c, err := resolve(t, nil, links)
	if err != nil || len(c.Warnings) > 0 {
		t.Errorf("error %v, warnings %q", err, c.Warnings)
	}
}

// TestNoOptionIsCalledAsAServiceLinkIs: its variable would be ignored.
func TestNoOptionIsCalledAsAServiceLinkIs(t *testing.T) {
	for _, o := range options() {
		if serviceLink.MatchString(envName(o.name) + "=") {
			t.Errorf("--%s cannot be set by %s", o.name, envName(o.name))
		}
	}
}

// TestALinkDoesNotSetAnOptionOfTheSameName: "EBB_PORT" would be that of --port.
func TestALinkDoesNotSetAnOptionOfTheSameName(t *testing.T) {
	for kv, link := range map[string]bool{"EBB_PORT=tcp://10.96.0.7:80": true, "EBB_PORT=80": false, "EBB_PORT=auto": false} {
		if serviceLink.MatchString(kv) != link {
			t.Errorf("%s counts as a link: %v", kv, !link)
		}
	}
}

func TestUnknownVariablesAreWarningsThatNameTheNearestOption(t *testing.T) {
	for kv, want := range map[string]string{
		"EBB_XPD=off":            "environment variable EBB_XPD sets nothing: there is no option of that name; did you mean EBB_XDP?",
		"EBB_SNAT_PORT=1-2":      "did you mean EBB_SNAT_PORTS?",
		"EBB_METRIC_ADDRESS=:1":  "did you mean EBB_METRICS_ADDR?",
		"EBB_CONFIGS=x":          "did you mean EBB_CONFIG?",
		"EBB_PORT=80":            "environment variable EBB_PORT sets nothing",
		"EBB_UPLINK_PORT_X=1":    "environment variable EBB_UPLINK_PORT_X sets nothing",
		"EBB_SOMETHING_ELSE=yes": "sets nothing: there is no option of that name",
	} {
		c, err := resolve(t, nil, []string{kv})
		if err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], want) {
			t.Errorf("%s: error %v, warnings %q; want %q", kv, err, c.Warnings, want)
		}
	}
	if c, err := resolve(t, nil, []string{"EBB_SOMETHING_ELSE=yes"}); err != nil || strings.Contains(c.Warnings[0], "did you mean") {
		t.Errorf("a name like no other: %v, %q", err, c.Warnings)
	}
}

func TestWrongValuesAreRefusedWithTheirPlaceAndWhatIsAllowed(t *testing.T) {
	tests := []struct {
		name, file string
		args, env  []string
		want       string
	}{
		{name: "flag", args: []string{"--xdp=fast"}, want: `flag --xdp: "fast": allowed are auto, native, generic, off`},
		{name: "environment", env: []string{"EBB_SNAT_PORTS=9-1"}, want: `env EBB_SNAT_PORTS: "9-1": allowed are auto, or MIN-MAX`},
		{name: "file", file: "health-addr: nowhere", want: `key health-addr: "nowhere": allowed are HOST:PORT`},
		{name: "unknown key", file: "xpd: auto", want: "key xpd: unknown; there are "},
		{name: "key twice", file: "xdp: auto\nxdp: off", want: "already set"},
		{name: "nested value", file: "xdp: {a: b}", want: "key xdp: map[a:b]: want a single value"},
		{name: "source", args: []string{"--source=dir:"}, want: "allowed are kubernetes, dir:PATH"},
		{name: "one bad element", args: []string{"--node-addresses=10.0.0.1,x"}, want: `allowed are IP addresses`},
		{name: "no node ports", args: []string{"--nodeport-addresses="}, want: `allowed are primary, all, or CIDRs`},
		{name: "a word and a range", args: []string{"--nodeport-addresses=all,10.0.0.0/8"}, want: `allowed are primary, all, or CIDRs`},
		{name: "a malformed pattern", args: []string{"--pod-link=veth*,[x"}, want: `flag --pod-link: "veth*,[x": allowed are demand, auto, off, or patterns`},
		{name: "no pods' links, and some", args: []string{"--pod-link=off,auto"}, want: `flag --pod-link: "off,auto": allowed are`},
		{name: "pods' links always, and on demand", args: []string{"--pod-link=demand,auto"}, want: `flag --pod-link: "demand,auto": allowed are`},
		{name: "no bridge", args: []string{"--detect-local-mode=BridgeInterface", "--pod-interface-name-prefix=veth"}, want: "BridgeInterface needs --pod-bridge-interface"},
		{name: "no prefix", env: []string{"EBB_DETECT_LOCAL_MODE=InterfaceNamePrefix"}, want: "InterfaceNamePrefix needs --pod-interface-name-prefix"},
		{name: "a bridge that cannot be", args: []string{"--pod-bridge-interface=a/b"}, want: `"a/b": allowed are a device name`},
		{name: "interval", args: []string{"--min-sync-interval=1h"}, want: "allowed are a duration"},
		{name: "API server", args: []string{"--kube-api=https://192.0.2.1:6443,192.0.2.2:6443"}, want: `allowed are URLs, or absolute paths`},
		{name: "node name", args: []string{"--node-name="}, want: "allowed are a node's name"},
		{name: "proxy name", args: []string{"--service-proxy-name=a,b"}, want: `flag --service-proxy-name: "a,b": allowed are a label value`},
		{name: "drain signal", args: []string{"--drain-signal=node:x"}, want: "allowed are taint:, label: or annotation:KEY"},
		{name: "drain delay", file: "drain-delay: 2h", want: "allowed are a duration from 0 to 1h"},
		{name: "staleness", env: []string{"EBB_HEALTH_STALE_AFTER=0s"}, want: "allowed are a duration from 1s to 1h"},
		{name: "responder", args: []string{"--health-responder=on"}, want: "allowed are start, external, off"},
		{name: "how TCP is refused", args: []string{"--reject-tcp=drop"}, want: "allowed are icmp, reset"},
		{name: "answers a second", env: []string{"EBB_REJECT_RATE=1000001"}, want: "allowed are a number from 0 to 1000000"},
		{name: "pings", file: "vip-echo: 1", want: "allowed are on, off"},
		{name: "lost backends", args: []string{"--on-backend-gone=rst"}, want: "allowed are keep, reset"},
		{name: "unknown flows", file: "unknown-flow: ignore", want: "allowed are reset, drop, pass"},
		{name: "east-west", args: []string{"--east-west=on"}, want: "allowed are socket, packet, off"},
		{name: "entries", args: []string{"--max-slots=-1"}, want: "allowed are a number of entries"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			args := tc.args
			if tc.file != "" {
				args = append(args, "--config", write(t, tc.file))
			}
			_, err := resolve(t, args, tc.env)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestServiceProxyNameIsALabelValue(t *testing.T) {
	longest := strings.Repeat("a", 63)
	for name, ok := range map[string]bool{
		"": true, "ebb": true, "a.b_C-1": true, "x": true, longest: true,
		longest + "a": false, "-ebb": false, "ebb.": false, "a b": false, "a/b": false, "é": false,
	} {
		c, err := resolve(t, nil, []string{"EBB_SERVICE_PROXY_NAME=" + name})
		if (err == nil) != ok || ok && c.ServiceProxyName != name {
			t.Errorf("%q: got %q, %v", name, c.ServiceProxyName, err)
		}
	}
}

func TestNodePortAddressesAreAWordOrRanges(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want service.NodePortAddrs
	}{
		{"default", nil, service.NodePortAddrs{}},
		{"primary", []string{"--nodeport-addresses=primary"}, service.NodePortAddrs{}},
		{"all", []string{"--nodeport-addresses=all"}, service.NodePortAddrs{All: true}},
		{"ranges", []string{"--nodeport-addresses=10.0.0.0/8", "--nodeport-addresses=fd00::/8"},
			service.NodePortAddrs{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}},
	}
	for _, tc := range tests {
		c, err := resolve(t, tc.args, nil)
		if err != nil || c.NodePorts.All != tc.want.All || !slices.Equal(c.NodePorts.CIDRs, tc.want.CIDRs) {
			t.Errorf("%s: got %v, %v; want %v", tc.name, c.NodePorts, err, tc.want)
		}
	}
}

func TestSNATPortsAreChosenUnlessTheyAreGiven(t *testing.T) {
	for want, args := range map[PortRange][]string{
		{}: nil, {1024, 29999}: {"--snat-ports=1024-29999"}, {1, 65535}: {"--snat-ports=1-65535"},
	} {
		c, err := resolve(t, args, nil)
		if err != nil || c.SNATPorts != want {
			t.Errorf("%v: %s, %v; want %s", args, c.SNATPorts, err, want)
		}
	}
	if c, err := resolve(t, []string{"--snat-ports=auto"}, []string{"EBB_SNAT_PORTS=5000-6000"}); err != nil || c.SNATPorts != (PortRange{}) {
		t.Errorf("%s, %v", c.SNATPorts, err)
	}
}

func TestDrainSignals(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"by default": {nil, "taint:ToBeDeletedByClusterAutoscaler taint:karpenter.sh/disrupted annotation:ebb-lb.dev/drain"},
		"others":     {[]string{"--drain-signal=label:pool=old", "--drain-signal=taint:down"}, "label:pool=old taint:down"},
		"none":       {[]string{"--drain-signal="}, ""},
	} {
		c, err := resolve(t, tc.args, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range c.Health.DrainSignals {
			got = append(got, s.String())
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s: %v, want %s", name, got, tc.want)
		}
	}
}

func TestTheResponderIsTurnedOffAsItIsWrittenInTheFile(t *testing.T) {
	c, err := resolve(t, []string{"--config", write(t, "health-responder: off\ndrain-scope: all\n")}, nil)
	if err != nil || c.Health.Responder != "off" || !c.Health.DrainServices {
		t.Errorf("%+v, %v", c.Health, err)
	}
}

func TestAnswersOfTheNode(t *testing.T) {
	tests := []struct {
		name string
		args []string
		env  []string
		file string
		want Answers
		gone string
	}{
		{name: "default", want: Answers{RejectRate: 1000}, gone: KeepGone},
		{name: "flags", args: []string{"--reject-tcp=reset", "--reject-rate=0", "--vip-echo=on", "--on-backend-gone=reset"},
			want: Answers{RejectReset: true, VIPEcho: true}, gone: ResetGone},
		{name: "environment", env: []string{"EBB_REJECT_TCP=icmp", "EBB_REJECT_RATE=7", "EBB_VIP_ECHO=off", "EBB_ON_BACKEND_GONE=keep"},
			want: Answers{RejectRate: 7}, gone: KeepGone},
		{name: "file", file: "reject-rate: 1000000\nvip-echo: on\non-backend-gone: reset\n",
			want: Answers{RejectRate: 1_000_000, VIPEcho: true}, gone: ResetGone},
		{name: "file, off", file: "vip-echo: off\n", want: Answers{RejectRate: 1000}, gone: KeepGone},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			args := tc.args
			if tc.file != "" {
				args = append(args, "--config", write(t, tc.file))
			}
			c, err := resolve(t, args, tc.env)
			if err != nil || c.Answers != tc.want || c.OnBackendGone != tc.gone {
				t.Errorf("%+v and %q, error %v; want %+v and %q", c.Answers, c.OnBackendGone, err, tc.want, tc.gone)
			}
		})
	}
}

func TestUnknownFlowsAreResetUnlessOtherwiseSet(t *testing.T) {
	for want, args := range map[string][]string{
		"reset": nil, "drop": {"--unknown-flow=drop"}, "pass": {"--unknown-flow=pass"},
	} {
		c, err := resolve(t, args, nil)
		if err != nil || c.UnknownFlow != want {
			t.Errorf("%v: %q, %v; want %q", args, c.UnknownFlow, err, want)
		}
	}
}

func TestPodsLinksAreNoneUnlessTheyAreNamed(t *testing.T) {
	tests := []struct {
		args []string
		want PodLinks
	}{
		{nil, PodLinks{Demand: true}},
		{[]string{"--pod-link="}, PodLinks{}},
		{[]string{"--pod-link=off"}, PodLinks{}},
		{[]string{"--pod-link=demand,tap*"}, PodLinks{Demand: true, Patterns: []string{"tap*"}}},
		{[]string{"--pod-link=auto"}, PodLinks{Auto: true}},
		{[]string{"--pod-link=veth*", "--pod-link=auto,tap?"}, PodLinks{Auto: true, Patterns: []string{"veth*", "tap?"}}},
		{[]string{"--detect-local-mode=BridgeInterface", "--pod-bridge-interface=cni0"}, PodLinks{Demand: true, Bridge: "cni0"}},
		{[]string{"--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=cali"}, PodLinks{Demand: true, Prefix: "cali"}},
	}
	for _, tc := range tests {
		c, err := resolve(t, tc.args, nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tc.want, c.PodLinks); d != "" {
			t.Errorf("%q: %s", tc.args, d)
		}
	}
}

func TestSocketsAreTurnedOffAsItIsWrittenInTheFile(t *testing.T) {
	for _, tc := range []struct{ file, want string }{
		{"", EastWestSocket}, {"east-west: packet\n", EastWestPacket}, {"east-west: off\n", EastWestOff},
	} {
		c, err := resolve(t, []string{"--config", write(t, tc.file+"cgroup-root: /host/cgroup\n")}, nil)
		if err != nil || c.EastWest != tc.want || c.CgroupRoot != "/host/cgroup" {
			t.Errorf("%q: %q at %q, %v", tc.file, c.EastWest, c.CgroupRoot, err)
		}
	}
}

func TestConntrackSettingsHaveKubeProxysNamesAndDefaults(t *testing.T) {
	c, err := resolve(t, nil, nil)
	want := conntrack.Limits{MaxPerCore: 32768, Min: 131072, TCPEstablished: 24 * time.Hour, TCPCloseWait: time.Hour}
	if err != nil || c.Conntrack != want {
		t.Errorf("%+v, %v; want %+v", c.Conntrack, err, want)
	}
	c, err = resolve(t, []string{"--conntrack-tcp-be-liberal", "--conntrack-udp-timeout=40s"}, []string{"EBB_CONNTRACK_MAX_PER_CORE=0"})
	if err != nil || !c.Conntrack.TCPBeLiberal || c.Conntrack.UDP != 40*time.Second || c.Conntrack.MaxPerCore != 0 {
		t.Errorf("%+v, %v", c.Conntrack, err)
	}
	if _, err := resolve(t, []string{"--conntrack-tcp-timeout-close-wait=10ms"}, nil); err == nil {
		t.Error("part of a second was accepted")
	}
}

func TestRangesOfIPv4MayBeWrittenAsThoseOfIPv6(t *testing.T) {
	c, err := resolve(t, []string{"--cluster-cidr=::ffff:10.244.0.0/112", "--nodeport-addresses=::ffff:192.0.2.0/120"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.ClusterCIDRs, c.NodePorts.CIDRs); got != "[10.244.0.0/16] [192.0.2.0/24]" {
		t.Errorf("got %s", got)
	}
	if _, err := resolve(t, []string{"--cluster-cidr=::ffff:0.0.0.0/95"}, nil); err == nil {
		t.Error("a range of both families is taken")
	}
}
