package helm

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const chartDir = "../../../deploy/helm/ebb"

func TestHelmFindsNothingWrong(t *testing.T) {
	if err := Lint(chartDir); err != nil {
		t.Error(err)
	}
}

// kinds returns "Kind/name" of each rendered object.
func kinds(t *testing.T, values Values) []string {
	t.Helper()
	var all []string
	for _, o := range objects(t, values) {
		all = append(all, o.Kind+"/"+o.Metadata.Name)
	}
	slices.Sort(all)
	return all
}

type object struct {
	APIVersion, Kind string
	Metadata         struct{ Name, Namespace string }
	Data             map[string]string
	Spec             struct {
		Template struct {
			Spec struct {
				HostPID                      bool  `yaml:"hostPID"`
				AutomountServiceAccountToken *bool `yaml:"automountServiceAccountToken"`
				Containers, InitContainers   []container
			}
		}
	}
}

type container struct {
	Name, Image     string
	Args            []string
	SecurityContext struct {
		Privileged   bool
		Capabilities struct{ Add, Drop []string }
	} `yaml:"securityContext"`
}

func objects(t *testing.T, values Values) []object {
	t.Helper()
	files, err := Render(t.Context(), chartDir, values)
	if err != nil {
		t.Fatal(err)
	}
	var all []object
	for doc := range strings.SplitSeq(Documents(files), "---\n") {
		var o object
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatalf("%v:\n%s", err, doc)
		}
		all = append(all, o)
	}
	return all
}

func find(t *testing.T, all []object, kind, name string) object {
	t.Helper()
	for _, o := range all {
		if o.Kind == kind && o.Metadata.Name == name {
			return o
		}
	}
	t.Fatalf("there is no %s/%s", kind, name)
	return object{}
}

func TestEachSwitchSwitchesItsObjects(t *testing.T) {
	base := []string{"ClusterRole/ebb", "ClusterRoleBinding/ebb", "ConfigMap/ebb", "DaemonSet/ebb", "DaemonSet/ebb-responder", "ServiceAccount/ebb"}
	tests := []struct {
		name          string
		values        Values
		more, without []string
	}{
		{"defaults", nil, nil, nil},
		{"no responder", Values{"responder": Values{"enabled": false}}, nil, []string{"DaemonSet/ebb-responder"}},
		{"no service account", Values{"serviceAccount": Values{"create": false, "name": "mine"}}, nil, []string{"ServiceAccount/ebb"}},
		{"no rights", Values{"rbac": Values{"create": false}}, nil, []string{"ClusterRole/ebb", "ClusterRoleBinding/ebb"}},
		{"monitor", Values{"serviceMonitor": Values{"enabled": true}}, []string{"Service/ebb-metrics", "ServiceMonitor/ebb"}, nil},
		{"alerts", Values{"prometheusRule": Values{"enabled": true}}, []string{"PrometheusRule/ebb"}, nil},
		{"network policy", Values{"networkPolicy": Values{"enabled": true}}, []string{"NetworkPolicy/ebb"}, nil},
		{"uninstall", Values{"uninstall": true}, nil, []string{"ConfigMap/ebb", "DaemonSet/ebb-responder"}},
	}
	for _, tc := range tests {
		want := slices.DeleteFunc(slices.Concat(base, tc.more), func(o string) bool { return slices.Contains(tc.without, o) })
		slices.Sort(want)
		if got := kinds(t, tc.values); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", tc.name, got, want)
		}
	}
}

func TestWhatTheSchemaRefusesIsNamed(t *testing.T) {
	tests := []struct {
		values Values
		want   string
	}{
		{Values{"imag": Values{}}, "imag"},
		{Values{"image": Values{"digest": "sha256:abc"}}, "/image/digest"},
		{Values{"image": Values{"pullPolicy": "Sometimes"}}, "/image/pullPolicy"},
		{Values{"kubeApi": Values{"servers": []any{"10.0.0.1:6443"}}}, "/kubeApi/servers/0"},
		{Values{"kubeApi": Values{"nodeKubeconfig": "kubelet.conf"}}, "/kubeApi/nodeKubeconfig"},
		{Values{"agent": Values{"maxUnavailable": 0}}, "/agent/maxUnavailable"},
		{Values{"agent": Values{"metricsAddr": "10249"}}, "/agent/metricsAddr"},
		{Values{"agent": Values{"healthAddr": ""}}, "/agent/healthAddr"},
		{Values{"config": Values{"state-dir": "/tmp"}}, "state-dir"},
		{Values{"config": Values{"--xdp": "off"}}, "--xdp"},
		{Values{"uninstall": "yes"}, "/uninstall"},
		{Values{"tolerations": Values{}}, "/tolerations"},
	}
	for _, tc := range tests {
		_, err := Render(t.Context(), chartDir, tc.values)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: error %v, want one with %s", tc.values, err, tc.want)
		}
	}
}

func TestCapabilitiesAreTheFewestThatDo(t *testing.T) {
	few := []string{"BPF", "NET_ADMIN", "PERFMON"}
	for closing, want := range map[bool][]string{true: append(slices.Clone(few), "SYS_ADMIN", "SYS_PTRACE"), false: few} {
		all := objects(t, Values{"agent": Values{"closePodSockets": closing}})
		pod := find(t, all, "DaemonSet", "ebb").Spec.Template.Spec
		got := pod.Containers[0].SecurityContext
		if !slices.Equal(got.Capabilities.Add, want) || !slices.Equal(got.Capabilities.Drop, []string{"ALL"}) || got.Privileged || pod.HostPID != closing {
			t.Errorf("closing sockets of pods %v: %+v, hostPID %v; want %v", closing, got, pod.HostPID, want)
		}
		responder := find(t, all, "DaemonSet", "ebb-responder").Spec.Template.Spec
		if c := responder.Containers[0].SecurityContext.Capabilities; len(c.Add) > 0 || !slices.Equal(c.Drop, []string{"ALL"}) {
			t.Errorf("the responder has %+v", c)
		}
		if responder.AutomountServiceAccountToken == nil || *responder.AutomountServiceAccountToken {
			t.Error("the responder is given a token")
		}
	}
}

func TestTheAgentIsToldWhereTheAPIServerIs(t *testing.T) {
	tests := []struct {
		values Values
		want   []string
	}{
		{Values{}, nil},
		{Values{"servers": []any{"https://192.0.2.1:6443", "https://[2001:db8::1]:6443"}}, []string{"https://192.0.2.1:6443", "https://[2001:db8::1]:6443"}},
		{Values{"nodeKubeconfig": "/etc/kubernetes/kubelet.conf"}, []string{"/host/etc/kubernetes/kubelet.conf"}},
		{Values{"servers": []any{"https://192.0.2.1:6443"}, "nodeKubeconfig": "/k"}, []string{"https://192.0.2.1:6443", "/host/k"}},
	}
	for _, tc := range tests {
		var file struct {
			KubeAPI []string `yaml:"kube-api"`
			Rest    Values   `yaml:",inline"`
		}
		cm := find(t, objects(t, Values{"kubeApi": tc.values, "config": Values{"uplink": []any{"eth0"}, "xdp": "off"}}), "ConfigMap", "ebb")
		if err := yaml.Unmarshal([]byte(cm.Data["ebb.yaml"]), &file); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(file.KubeAPI, tc.want) || file.Rest["xdp"] != "off" {
			t.Errorf("%v: %+v", tc.values, file)
		}
	}
}

func TestADigestGoesBeforeATag(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for want, image := range map[string]Values{
		"r.test/ebb:v9":        {"repository": "r.test/ebb", "tag": "v9"},
		"r.test/ebb@" + digest: {"repository": "r.test/ebb", "tag": "v9", "digest": digest},
	} {
		for _, o := range objects(t, Values{"image": image}) {
			for _, c := range o.Spec.Template.Spec.Containers {
				if c.Image != want {
					t.Errorf("%s has image %s, want %s", o.Metadata.Name, c.Image, want)
				}
			}
		}
	}
}

func TestWhatIsGeneratedIsCurrent(t *testing.T) {
	files, err := Manifests(t.Context(), chartDir)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("../../../deploy/manifests", name))
		if err != nil || string(got) != want {
			t.Errorf("deploy/manifests/%s is not what the chart gives (%v): make manifests", name, err)
		}
	}
	values, err := ValuesDoc(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile("../../../docs/values.md"); err != nil || string(got) != values {
		t.Errorf("docs/values.md is not what values.yaml gives (%v): make manifests", err)
	}
}

// TestAlertsAreAboutMetricsThereAre compares names with the agent's source.
func TestAlertsAreAboutMetricsThereAre(t *testing.T) {
	files, err := Render(t.Context(), chartDir, Values{"prometheusRule": Values{"enabled": true}})
	if err != nil {
		t.Fatal(err)
	}
	var known []byte
	sources, err := filepath.Glob("../../../agent/metrics/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range sources {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		known = append(known, b...)
	}
	names := regexp.MustCompile(`\bebb_[a-z_]+`).FindAllString(files["monitoring.yaml"], -1)
	if len(names) < 5 {
		t.Fatalf("metrics %v", names)
	}
	for _, n := range names {
		if !strings.Contains(string(known), `"`+n+`"`) && !strings.Contains(string(known), `"`+strings.TrimPrefix(n, "ebb_")+`"`) {
			t.Errorf("no metric is called %s", n)
		}
	}
}

func TestAPackageHasTheVersionOfTheRelease(t *testing.T) {
	file, err := Package(chartDir, "v1.2.3", t.TempDir())
	if err != nil || filepath.Base(file) != "ebb-1.2.3.tgz" {
		t.Errorf("%s, %v", file, err)
	}
}
