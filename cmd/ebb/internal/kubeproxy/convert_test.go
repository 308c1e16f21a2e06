package kubeproxy

import (
	"cmp"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"github.com/ebb-lb/ebb/agent/config"
)

var update = flag.Bool("update", false, "write testdata and the table in docs/migration.md")

func convert(t *testing.T, name string) Result {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Convert(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (write it by -update): -want +got\n%s", file, diff)
	}
}

func TestConfigurationsBecomeValues(t *testing.T) {
	for _, name := range []string{"kubeadm", "ipvs", "nftables"} {
		t.Run(name, func(t *testing.T) { golden(t, name+".values", convert(t, name).Values()) })
	}
}

// The chart writes the section config into the agent's file as it is.
func TestTheAgentTakesTheOptions(t *testing.T) {
	for _, name := range []string{"kubeadm", "ipvs", "nftables"} {
		var values struct {
			Config map[string]any `json:"config"`
		}
		if err := yaml.UnmarshalStrict([]byte(convert(t, name).Values()), &map[string]any{}); err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal([]byte(convert(t, name).Values()), &values); err != nil {
			t.Fatal(err)
		}
		text, err := yaml.Marshal(values.Config)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "ebb.yaml")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		config.Bind(fs)
		if err := fs.Set("config", file); err != nil {
			t.Fatal(err)
		}
		if _, err := config.Resolve(fs, nil); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

// The schema of the chart has patterns for addresses and servers, and refuses options that
// the chart itself sets.
func TestTheChartHasTheValues(t *testing.T) {
	text, err := os.ReadFile("../../../../deploy/helm/ebb/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Definitions map[string]struct{ Pattern string }
		Properties  map[string]struct {
			Properties    map[string]property
			PropertyNames struct{ Not struct{ Enum []string } }
		}
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kubeadm", "ipvs", "nftables"} {
		for _, s := range convert(t, name).Settings {
			section := schema.Properties[s.Section]
			_, value, _ := strings.Cut(s.String(), "=")
			p, known := section.Properties[s.Name]
			pattern := cmp.Or(p.Pattern, p.Items.Pattern, schema.Definitions[strings.TrimPrefix(p.Ref, "#/definitions/")].Pattern)
			switch {
			case s.Section == "config" && slices.Contains(section.PropertyNames.Not.Enum, s.Name):
				t.Errorf("%s: the chart sets option %s itself", s.From, s.Name)
			case s.Section != "config" && (!known || !regexp.MustCompile(pattern).MatchString(value)):
				t.Errorf("%s: the chart does not take %s", s.From, s)
			}
		}
	}
}

type property struct {
	Pattern string
	Ref     string `json:"$ref"`
	Items   struct{ Pattern string }
}

func TestEveryKeyOfKubernetesIsInTheTableOnce(t *testing.T) {
	text, err := os.ReadFile("testdata/keys-1.36")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range Keys() {
		got = append(got, k.Path)
		if k.Note == "" {
			t.Errorf("%s: the table says nothing about it", k.Path)
		}
		if (k.convert == nil) != (len(k.Becomes) == 0) && k.Path != "mode" {
			t.Errorf("%s: becomes %q, but is converted: %v", k.Path, k.Becomes, k.convert != nil)
		}
	}
	slices.Sort(got)
	if diff := gocmp.Diff(strings.Fields(string(text)), got); diff != "" {
		t.Errorf("-Kubernetes +table\n%s", diff)
	}
}

func TestTheDocumentHasTheTable(t *testing.T) {
	const (
		file  = "../../../../docs/migration.md"
		begin = "<!-- begin of the table -->\n"
		end   = "<!-- end of the table -->\n"
	)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(text), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s: no place for the table", file)
	}
	want := head + begin + "\n" + Document() + "\n" + end + tail
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := gocmp.Diff(want, string(text)); diff != "" {
		t.Errorf("%s has another table (write it by -update): %s", file, diff)
	}
}

func TestOptionsOfTheTableExist(t *testing.T) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	config.Bind(fs)
	for _, k := range Keys() {
		for _, name := range k.Becomes {
			if option, ok := strings.CutPrefix(name, "--"); ok && fs.Lookup(option) == nil {
				t.Errorf("%s: there is no %s", k.Path, name)
			}
		}
	}
}

func TestBadConfigurationsAreRefused(t *testing.T) {
	const head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
	for text, want := range map[string]string{
		"":                                 "it is empty: must be a KubeProxyConfiguration or a ConfigMap that holds one",
		"5":                                "5: must be a map of keys",
		"kind: Pod":                        `kind "Pod": must be KubeProxyConfiguration, or a ConfigMap that holds one`,
		"kind: ConfigMap":                  "ConfigMap: data has the keys []: none holds a KubeProxyConfiguration (kubeadm's is config.conf)",
		"kind: " + kindName:                "apiVersion: <nil>: must be kubeproxy.config.k8s.io/v1alpha1",
		head + "ipvs: {shed: rr}":          "ipvs.shed: unknown key: must be one of excludeCIDRs, minSyncPeriod, scheduler, strictARP, syncPeriod, tcpFinTimeout, tcpTimeout, udpTimeout",
		head + "ipvs: 5":                   "ipvs: unknown key: must be one of apiVersion, bindAddress, bindAddressHardFail, clientConnection, clusterCIDR, configSyncPeriod, conntrack, detectLocal, detectLocalMode, enableProfiling, featureGates, healthzBindAddress, hostnameOverride, iptables, ipvs, kind, logging, metricsBindAddress, mode, nftables, nodePortAddresses, oomScoreAdj, portRange, showHiddenMetricsForVersion, windowsRunAsService, winkernel",
		head + "mode: kernelspace":         `mode: "kernelspace": must be iptables, ipvs or nftables`,
		head + "mode: 5":                   "mode: 5: must be a string",
		head + "clusterCIDR: 10.0.0.1":     `clusterCIDR: "10.0.0.1": must be CIDRs`,
		head + "clusterCIDR: [10.0.0.0/8]": `clusterCIDR: ["10.0.0.0/8"]: must be a string`,
		head + "nodePortAddresses: [primary, all]":       `nodePortAddresses: "primary": must be CIDRs`,
		head + "healthzBindAddress: localhost":           `healthzBindAddress: "localhost": must be HOST:PORT or an IP address`,
		head + "conntrack: {udpTimeout: soon}":           `conntrack.udpTimeout: "soon": must be a duration as 30s or 1h`,
		head + "conntrack: {min: -1}":                    `the options it becomes: flag --conntrack-min: "-1": allowed are a number`,
		head + "detectLocalMode: BridgeInterface":        `the options it becomes: --detect-local-mode BridgeInterface needs --pod-bridge-interface`,
		"kind: ConfigMap\ndata:\n  config.conf: 'a: [b'": "ConfigMap: data config.conf: yaml: line 1: did not find expected ',' or ']'",
		"kind: ConfigMap\ndata:\n  config.conf: '{kind: KubeProxyConfiguration, apiVersion: kubeproxy.config.k8s.io/v1alpha1, clientConnection: {kubeconfig: x}}'\n" +
			"  kubeconfig.conf: '{clusters: [{cluster: {server: \"http://192.0.2.1\"}}]}'": `clientConnection.kubeconfig: kubeconfig.conf: server "http://192.0.2.1": must be https://HOST:PORT`,
		head + "logging: {verbosity: -1}": `logging.verbosity: -1: must be a number from 0`,
	} {
		if _, err := Convert([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
	}
}

func TestAllThatIsWrongIsNamedAtOnce(t *testing.T) {
	_, err := Convert([]byte("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: x\nclusterCIDR: y\nz: 1\n"))
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Error(err)
	}
}

func TestAKeyThatIsThereTwiceIsRefused(t *testing.T) {
	_, err := Convert([]byte("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\nmode: nftables\n"))
	if err == nil || !strings.Contains(err.Error(), `"mode" already set in map`) {
		t.Error(err)
	}
}

func TestTheConfigMapOfOtherToolsIsTakenByItsContents(t *testing.T) {
	r, err := Convert([]byte("kind: ConfigMap\ndata:\n  config: |\n    apiVersion: kubeproxy.config.k8s.io/v1alpha1\n    kind: KubeProxyConfiguration\n    mode: nftables\n  other: 'no: [yaml'\n"))
	if err != nil || r.Mode != "nftables" {
		t.Error(r.Mode, err)
	}
}
