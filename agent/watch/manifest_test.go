package watch

import (
	"errors"
	"fmt"
	stdmaps "maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/service"
)

const (
	goodService = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  ports:
  - {name: http, port: 80}
`
	goodSlice = `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  namespace: shop
  labels: {kubernetes.io/service-name: web}
addressType: IPv4
ports:
- {name: http, port: 8080}
endpoints:
- addresses: [10.1.0.1]
`
	goodNode = `apiVersion: v1
kind: Node
metadata: {name: n1}
status:
  addresses:
  - {type: InternalIP, address: 192.0.2.1}
`
	goodServiceCIDR = `apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: kubernetes}
spec:
  cidrs: [10.96.0.0/16, 'fd00:96::/108']
`
)

func yamlFile(name, text string) manifestFile {
	return manifestFile{path: "m/" + name, data: []byte(text)}
}

// edit replaces one piece of a good manifest.
func edit(t *testing.T, text, old, replacement string) string {
	t.Helper()
	if strings.Count(text, old) != 1 {
		t.Fatalf("%q is in the manifest %d times", old, strings.Count(text, old))
	}
	return strings.Replace(text, old, replacement, 1)
}

// brief is content as "services; slices; node addresses; ServiceCIDRs", the
// last only if there are any.
func brief(c content) string {
	var b strings.Builder
	for _, s := range c.Services {
		b.WriteString(s.Name.String() + " ")
	}
	b.WriteString("; ")
	for _, s := range c.Slices {
		b.WriteString(s.Key.String() + ">" + s.Service.String() + " ")
	}
	b.WriteString("; ")
	for _, a := range c.Node.Addrs {
		b.WriteString(a.String() + " ")
	}
	for _, name := range slices.Sorted(stdmaps.Keys(c.ServiceCIDRs)) {
		fmt.Fprintf(&b, "; %s=%v", name, c.ServiceCIDRs[name])
	}
	return strings.TrimSpace(b.String())
}

func TestGoodManifests(t *testing.T) {
	tests := []struct {
		name  string
		files []manifestFile
		want  string
	}{
		{"documents of one file and of several are joined",
			[]manifestFile{yamlFile("a.yaml", goodService+"---\n"+goodSlice), yamlFile("b.yml", goodNode)},
			"shop/web ; shop/web-1>shop/web ; 192.0.2.1"},
		{"without the own node there are no addresses",
			[]manifestFile{yamlFile("a.yaml", strings.ReplaceAll(goodNode, "n1", "n2"))}, "; ;"},
		{"ServiceCIDRs are kept by their names",
			[]manifestFile{yamlFile("a.yaml", goodServiceCIDR+"---\n"+strings.NewReplacer("kubernetes", "more", "10.96", "10.97").Replace(goodServiceCIDR))},
			"; ; ; kubernetes=[10.96.0.0/16 fd00:96::/108]; more=[10.97.0.0/16 fd00:96::/108]"},
		{"a missing namespace is default",
			[]manifestFile{yamlFile("a.yaml", strings.ReplaceAll(goodService+"---\n"+goodSlice, "namespace: shop", ""))},
			"default/web ; default/web-1>default/web ;"},
		{"comments, leading separators and empty documents are no objects",
			[]manifestFile{yamlFile("a.yaml", "# shop\n--- # first\n"+goodService+"---\n# nothing\n---\n"+goodNode+"...\n# end\n")},
			"shop/web ; ; 192.0.2.1"},
		{"line ends may be CRLF, and a byte order mark is skipped",
			[]manifestFile{yamlFile("a.yaml", "\ufeff"+strings.ReplaceAll(goodService+"---\n"+goodNode, "\n", "\r\n"))},
			"shop/web ; ; 192.0.2.1"},
		{"JSON files may hold several objects",
			[]manifestFile{yamlFile("a.json", `
{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"clusterIPs":["10.96.0.1"]}}
{"apiVersion":"v1","kind":"Service","metadata":{"name":"b"},"spec":{"clusterIPs":["10.96.0.2"]}}`)},
			"default/a default/b ; ;"},
		{"a List stands for its items",
			[]manifestFile{yamlFile("a.yaml", `
apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- {apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.96.0.1}}
- {apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: ExternalIP, address: 192.0.2.9}]}}]}
`)}, "default/a ; ; 192.0.2.9"},
		{"the same name in another namespace is another object",
			[]manifestFile{yamlFile("a.yaml", goodService+"---\n"+strings.ReplaceAll(goodService, "shop", "test"))},
			"shop/web test/web ; ;"},
		{"no files are no objects", nil, "; ;"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parse(tc.files, onN1)
			if err != nil {
				t.Fatal(err)
			}
			if brief(got) != tc.want || got.Node.Name != "n1" {
				t.Errorf("got %q of node %q, want %q", brief(got), got.Node.Name, tc.want)
			}
		})
	}
}

func TestSlicePortWithoutNameIsTheUnnamedOne(t *testing.T) {
	got, err := parse([]manifestFile{yamlFile("a.yaml", edit(t, goodSlice, "name: http, ", ""))}, onN1)
	if err != nil {
		t.Fatal(err)
	}
	want := []service.SlicePort{{PortKey: service.PortKey{Proto: service.TCP}, Port: 8080}}
	if diff := cmp.Diff(want, got.Slices[0].Ports); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsNotBalancedIsNamed(t *testing.T) {
	tests := []struct {
		name, text, want string
	}{
		{"another kind", "apiVersion: apps/v1\nkind: Deployment\n", "m/a.yaml: document 1: kind Deployment of apps/v1 is not used"},
		{"a Service of another API", "apiVersion: serving.knative.dev/v1\nkind: Service\n",
			"m/a.yaml: document 1: kind Service of serving.knative.dev/v1 is not used"},
		{"a headless service", edit(t, goodService, "clusterIP: 10.96.0.1", "clusterIP: None"),
			"m/a.yaml: document 1: Service shop/web is not balanced: it is headless"},
		{"a service without address", edit(t, goodService, "clusterIP: 10.96.0.1", "type: NodePort"),
			"m/a.yaml: document 1: Service shop/web is not balanced: it has no clusterIP"},
		{"a service of another proxy", edit(t, goodService, "{name: web,", "{labels: {service.kubernetes.io/service-proxy-name: x}, name: web,"),
			"m/a.yaml: document 1: Service shop/web is not balanced: it has the label service.kubernetes.io/service-proxy-name"},
		{"an ExternalName", edit(t, goodService, "clusterIP: 10.96.0.1", "type: ExternalName"),
			"m/a.yaml: document 1: Service shop/web is not balanced: it is an ExternalName"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parse([]manifestFile{yamlFile("a.yaml", tc.text)}, onN1)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{tc.want}, got.ignored); diff != "" || brief(got) != "; ;" {
				t.Errorf("content %q, ignored (-want +got):\n%s", brief(got), diff)
			}
		})
	}
}

func TestManifestsAreOfTheProxyOfThatName(t *testing.T) {
	const label = "service.kubernetes.io/service-proxy-name"
	mine := edit(t, goodService, "{name: web,", "{labels: {"+label+": ebb}, name: mine,")
	got, err := parse([]manifestFile{yamlFile("a.yaml", goodService+"---\n"+mine)}, Options{NodeName: "n1", ServiceProxyName: "ebb"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"m/a.yaml: document 1: Service shop/web is not balanced: it does not have the label " + label + "=ebb"}
	if diff := cmp.Diff(want, got.ignored); diff != "" || brief(got) != "shop/mine ; ;" {
		t.Errorf("content %q, ignored (-want +got):\n%s", brief(got), diff)
	}
}

func TestBadManifests(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"an unknown field is named with its path", edit(t, goodService, "ports:", "prots:"),
			[]string{`m/a.yaml: document 1: Service shop/web: unknown field "spec.prots"`}},
		{"the number of the document is that in the file", goodNode + "---\n" + edit(t, goodService, "ports:", "prots:"),
			[]string{`m/a.yaml: document 2: Service shop/web: unknown field "spec.prots"`}},
		{"the case of a field counts", edit(t, goodService, "clusterIP:", "clusterip:"),
			[]string{`m/a.yaml: document 1: Service shop/web: unknown field "spec.clusterip"`}},
		{"a wrong type is named with its path", edit(t, goodService, "port: 80", "port: eighty"),
			[]string{`m/a.yaml: document 1: Service shop/web: field "spec.ports.port": string where int32 is wanted`}},
		{"a wrong type of the name too", edit(t, goodService, "name: web", "name: 5"),
			[]string{`m/a.yaml: document 1: field "metadata.name": number where string is wanted`}},
		{"a syntax error names the line of the file", goodNode + "---\na: b\nc: d: e\n",
			[]string{`m/a.yaml: document 2: yaml: line 9: mapping values are not allowed in this context`}},
		{"a key given twice names the line of the file", goodNode + "---\n" + edit(t, goodService, "kind: Service", "kind: Service\nkind: Service"),
			[]string{`m/a.yaml: document 2: yaml: unmarshal errors: line 10: key "kind" already set in map`}},
		{"a document that is no object", "hello\n",
			[]string{`m/a.yaml: document 1: string where an object is wanted`}},
		{"kind is required", "metadata: {name: x}\n",
			[]string{`m/a.yaml: document 1: apiVersion and kind are required`}},
		{"another version of a known kind is refused", edit(t, goodSlice, "k8s.io/v1", "k8s.io/v1beta1"),
			[]string{`m/a.yaml: document 1: EndpointSlice: apiVersion "discovery.k8s.io/v1beta1": only v1 is supported`}},
		{"a name is required", edit(t, goodService, "name: web, ", ""),
			[]string{`m/a.yaml: document 1: Service: metadata.name: Required value`}},
		{"a name must be one", edit(t, goodService, "name: web", "name: We_b"),
			[]string{`m/a.yaml: document 1: Service shop/We_b: metadata.name: Invalid value: "We_b"`}},
		{"a port is at most 65535", edit(t, goodService, "port: 80", "port: 65536"),
			[]string{`Service shop/web: spec.ports[0].port: Invalid value: 65536: must be between 1 and 65535`}},
		{"a port is at least 1", edit(t, goodService, "port: 80", "port: 0"),
			[]string{`Service shop/web: spec.ports[0].port: Invalid value: 0`}},
		{"a node port is at most 65535", edit(t, goodService, "port: 80", "port: 80, nodePort: 70000"),
			[]string{`spec.ports[0].nodePort: Invalid value: 70000`}},
		{"a protocol is known", edit(t, goodService, "port: 80", "port: 80, protocol: tcp"),
			[]string{`spec.ports[0].protocol: Unsupported value: "tcp": supported values: "TCP", "UDP", "SCTP"`}},
		{"two ports have two names", goodService + "  - {name: http, port: 81}\n",
			[]string{`spec.ports[1].name: Duplicate value: "http"`}},
		{"two ports have two numbers", goodService + "  - {name: b, port: 80}\n",
			[]string{`spec.ports[1].port: Duplicate value: 80`}},
		{"an address is one", edit(t, goodService, "10.96.0.1", "10.96.0.256"),
			[]string{`spec.clusterIP: Invalid value: "10.96.0.256": must be an IP address`}},
		{"an external address is one", edit(t, goodService, "ports:", "externalIPs: [192.0.2.1, '0.0.0.0']\n  ports:"),
			[]string{`spec.externalIPs[1]: Invalid value: "0.0.0.0": must be a unicast IP address`}},
		{"a load balancer address is one", goodService + "status: {loadBalancer: {ingress: [{ip: x}]}}\n",
			[]string{`status.loadBalancer.ingress[0].ip: Invalid value: "x"`}},
		{"a policy is known", edit(t, goodService, "ports:", "externalTrafficPolicy: local\n  ports:"),
			[]string{`spec.externalTrafficPolicy: Unsupported value: "local": supported values: "Cluster", "Local"`}},
		{"a type is known", edit(t, goodService, "ports:", "type: Loadbalancer\n  ports:"),
			[]string{`spec.type: Unsupported value: "Loadbalancer"`}},
		{"clusterIPs begin with clusterIP", edit(t, goodService, "ports:", "clusterIPs: [10.96.0.2]\n  ports:"),
			[]string{`spec.clusterIPs[0]: Invalid value: "10.96.0.2": must be spec.clusterIP`}},
		{"a range is one", edit(t, goodService, "ports:", "loadBalancerSourceRanges: [10.0.0.0/8, 10.0.0.1]\n  ports:"),
			[]string{`m/a.yaml: document 1: Service shop/web: spec.loadBalancerSourceRanges[1]: Invalid value: "10.0.0.1": must be a range`}},
		{"affinity is known", edit(t, goodService, "ports:", "sessionAffinity: clientIP\n  ports:"),
			[]string{`Service shop/web: spec.sessionAffinity: Unsupported value: "clientIP": supported values: "ClientIP", "None"`}},
		{"affinity ends within a day", edit(t, goodService, "ports:", "sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}\n  ports:"),
			[]string{`spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be between 1 and 86400`}},
		{"affinity lasts a second", edit(t, goodService, "ports:", "sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}\n  ports:"),
			[]string{`spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0`}},
		{"affinity must be wanted", edit(t, goodService, "ports:", "sessionAffinityConfig: {clientIP: {timeoutSeconds: 10}}\n  ports:"),
			[]string{`spec.sessionAffinityConfig: Forbidden: must be absent unless sessionAffinity is ClientIP`}},
		{"a health check node port is a port", edit(t, goodService, "ports:", "healthCheckNodePort: 65536\n  ports:"),
			[]string{`Service shop/web: spec.healthCheckNodePort: Invalid value: 65536`}},
		{"a slice names its service", edit(t, goodSlice, "  labels: {kubernetes.io/service-name: web}\n", ""),
			[]string{`EndpointSlice shop/web-1: metadata.labels[kubernetes.io/service-name]: Required value`}},
		{"a slice has a known address type", edit(t, goodSlice, "addressType: IPv4", "addressType: ipv4"),
			[]string{`addressType: Unsupported value: "ipv4": supported values: "IPv4", "IPv6", "FQDN"`}},
		{"an endpoint has an address", edit(t, goodSlice, "[10.1.0.1]", "[]"),
			[]string{`endpoints[0].addresses: Required value`}},
		{"an endpoint's address is one", edit(t, goodSlice, "10.1.0.1", "pod"),
			[]string{`endpoints[0].addresses[0]: Invalid value: "pod"`}},
		{"an endpoint is of the slice's family", edit(t, goodSlice, "10.1.0.1", "'fd00::1'"),
			[]string{`endpoints[0].addresses[0]: Invalid value: "fd00::1": must be of addressType IPv4`}},
		{"a slice's port is one", edit(t, goodSlice, "8080", "-1"),
			[]string{`ports[0].port: Invalid value: -1`}},
		{"a node's address is one", edit(t, goodNode, "192.0.2.1", "n1.example.test"),
			[]string{`Node n1: status.addresses[0].address: Invalid value: "n1.example.test"`}},
		{"a zone hint has a name", edit(t, goodSlice, "[10.1.0.1]", "[10.1.0.1]\n  hints: {forZones: [{name: a}, {}]}"),
			[]string{`EndpointSlice shop/web-1: endpoints[0].hints.forZones[1].name: Required value`}},
		{"a zone hint is one zone", edit(t, goodSlice, "[10.1.0.1]", "[10.1.0.1]\n  hints: {forZones: [{name: 'a,b'}]}"),
			[]string{`endpoints[0].hints.forZones[0].name: Invalid value: "a,b"`}},
		{"a node hint is a node's name", edit(t, goodSlice, "[10.1.0.1]", "[10.1.0.1]\n  hints: {forNodes: [{name: N_1}]}"),
			[]string{`endpoints[0].hints.forNodes[0].name: Invalid value: "N_1"`}},
		{"a trigger time is one", edit(t, goodSlice, "  labels:", "  annotations: {endpoints.kubernetes.io/last-change-trigger-time: now}\n  labels:"),
			[]string{`metadata.annotations[endpoints.kubernetes.io/last-change-trigger-time]: Invalid value: "now": must be a time as in RFC 3339`}},
		{"a zone is one", edit(t, goodNode, "{name: n1}", "{name: n1, labels: {topology.kubernetes.io/zone: a b}}"),
			[]string{`Node n1: metadata.labels[topology.kubernetes.io/zone]: Invalid value: "a b"`}},
		{"pod ranges are some", edit(t, goodNode, "status:", "spec: {podCIDR: x, podCIDRs: [10.244.0.0/24, z]}\nstatus:"),
			[]string{`Node n1: spec.podCIDR: Invalid value: "x"`, `Node n1: spec.podCIDRs[1]: Invalid value: "z"`}},
		{"a taint has a key, a value and an effect", edit(t, goodNode, "status:", "spec: {taints: [{value: 'v v', effect: Never}]}\nstatus:"),
			[]string{`Node n1: spec.taints[0].key: Required value`, `spec.taints[0].value: Invalid value: "v v"`,
				`spec.taints[0].effect: Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"`}},
		{"a ServiceCIDR has ranges", "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: a}\n",
			[]string{`m/a.yaml: document 1: ServiceCIDR a: spec.cidrs: Required value`}},
		{"a ServiceCIDR's range is one", edit(t, goodServiceCIDR, "10.96.0.0/16", "10.96.0.0/33"),
			[]string{`ServiceCIDR kubernetes: spec.cidrs[0]: Invalid value: "10.96.0.0/33": must be a range`}},
		{"a ServiceCIDR has one range of a family", edit(t, goodServiceCIDR, "'fd00:96::/108'", "10.97.0.0/16"),
			[]string{`ServiceCIDR kubernetes: spec.cidrs[1]: Invalid value: "10.97.0.0/16": must be the only range of its family`}},
		{"a ServiceCIDR has a name", edit(t, goodServiceCIDR, "{name: kubernetes}", "{name: K}"),
			[]string{`ServiceCIDR K: metadata.name: Invalid value: "K"`}},
		{"a ServiceCIDR is of v1", edit(t, goodServiceCIDR, "k8s.io/v1", "k8s.io/v1beta1"),
			[]string{`ServiceCIDR: apiVersion "networking.k8s.io/v1beta1": only v1 is supported`}},
		{"an object is defined once", goodService + "---\n" + goodService,
			[]string{`m/a.yaml: document 2: Service shop/web: already defined in m/a.yaml: document 1`}},
		{"an item of a list is named", `{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Node, metadata: {name: n1}, spce: {}}]}`,
			[]string{`m/a.yaml: document 1: items[0]: Node n1: unknown field "spce"`}},
		{"all that is wrong is told at once", edit(t, goodService, "port: 80", "port: 0") + "---\n" + edit(t, goodNode, "status", "sttus") + "---\n[",
			[]string{`spec.ports[0].port: Invalid value: 0`, `m/a.yaml: document 2: Node n1: unknown field "sttus"`, `m/a.yaml: document 3: yaml:`}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			_, err := parse([]manifestFile{yamlFile("a.yaml", tc.text)}, onN1)
			checkErrors(t, err, tc.want)
		})
	}
}

// checkErrors wants err to join just these errors, in this order.
func checkErrors(t *testing.T, err error, want []string) {
	t.Helper()
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		t.Fatalf("got %v, want joined errors", err)
	}
	got := joined.Unwrap()
	if len(got) != len(want) {
		t.Fatalf("got %d errors, want %d:\n%v", len(got), len(want), err)
	}
	for i := range want {
		if !strings.Contains(got[i].Error(), want[i]) {
			t.Errorf("error %d:\n got %s\nwant %s", i, got[i], want[i])
		}
		if strings.Contains(got[i].Error(), "\n") {
			t.Errorf("error %d is more than a line: %q", i, got[i])
		}
	}
}

func TestDuplicatesNameBothPlaces(t *testing.T) {
	_, err := parse([]manifestFile{yamlFile("a.yaml", goodNode+"---\n"+goodService), yamlFile("b.yaml", goodService)}, onN1)
	checkErrors(t, err, []string{`m/b.yaml: document 1: Service shop/web: already defined in m/a.yaml: document 2`})
}

func TestBadJSONNamesItsLine(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"a syntax error", "{\n \"kind\": \"Node\",\n \"x\" 1\n}", "m/a.json: document 1: line 3: invalid character"},
		{"an object that does not end", "{}\n{\n \"kind\":\n", "m/a.json: document 2: line 4: unexpected EOF"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			_, err := parse([]manifestFile{yamlFile("a.json", tc.text)}, onN1)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}
