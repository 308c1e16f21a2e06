package balancer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

// write replaces a manifest in one step.
func (w *world) write(name, text string) {
	w.Helper()
	scratch := filepath.Join(w.manifests, "."+name)
	if err := os.WriteFile(scratch, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
	if err := os.Rename(scratch, filepath.Join(w.manifests, name)); err != nil {
		w.Fatal(err)
	}
}

func (w *world) publishServices() {
	w.Helper()
	w.write("services.yaml", fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %s, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.80
  clusterIPs: [10.96.0.80]
  ipFamilies: [IPv4]
  ports: [{name: http, protocol: TCP, port: 80, nodePort: %d}]
---
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.81
  clusterIPs: [10.96.0.81]
  ipFamilies: [IPv4]
  externalTrafficPolicy: Local
  healthCheckNodePort: %d
  ports: [{name: http, protocol: TCP, port: 80, nodePort: %d}]
`, serviceCluster, clusterPort, serviceIn, localProbePort, localPort))
}

// publishNode says what the cluster knows of a node; taint may be empty.
func (w *world) publishNode(n *lab.Node, taint string) {
	w.Helper()
	spec := "{}"
	if taint != "" {
		spec = fmt.Sprintf("{taints: [{key: %s, effect: NoSchedule}]}", taint)
	}
	w.write(n.Name()+".yaml", fmt.Sprintf(`apiVersion: v1
kind: Node
metadata: {name: %s}
spec: %s
status: {addresses: [{type: InternalIP, address: %s}]}
`, n.Name(), spec, n.Addr4))
}

// publish says which pods there are. Those that end still serve.
func (w *world) publish() {
	w.Helper()
	var eps strings.Builder
	add := func(p *runningPod, ending bool) {
		fmt.Fprintf(&eps, "- {addresses: [%s], nodeName: %s, conditions: {ready: %v, serving: true, terminating: %v}}\n",
			p.Addr4, p.Node.Name(), !ending, ending)
	}
	for _, p := range w.pods {
		add(p, false)
	}
	for p := range w.ending {
		add(p, true)
	}
	var slices []string
	for _, name := range []string{serviceCluster, serviceIn} {
		slices = append(slices, fmt.Sprintf(`apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %s-1, namespace: shop, labels: {kubernetes.io/service-name: %s}}
addressType: IPv4
ports: [{name: http, protocol: TCP, port: %d}]
endpoints:
%s`, name, name, pod.HTTPPort, eps.String()))
	}
	w.write("endpoints.yaml", strings.Join(slices, "---\n"))
}
