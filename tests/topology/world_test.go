package topology

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

const (
	bpffs       = lab.BPFFS + "/ebb"
	metricsAddr = "127.0.0.1:10249"
	healthURL   = "http://127.0.0.1:10256/healthz"
	// patience bounds everything that is waited for.
	patience   = 30 * time.Second
	probeEvery = 20 * time.Millisecond

	healthPort                 = 10256
	httpPort, echoPort         = 80, 5353
	httpNodePort, echoNodePort = 30080, 30053
)

// world is a lab with a service: an agent runs, or does not, on the first node,
// where all traffic enters; pods are on both.
type world struct {
	*testing.T
	lab       *lab.Lab
	entry     *lab.Node
	pods      []*lab.Pod
	manifests string
	state     string // directory of what agents leave beside the kernel
	binary    string // of ebb
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldIn(t, lab.Config{UplinkPeer: lab.NativeXDPPeer()})
}

func newWorldIn(t *testing.T, cfg lab.Config) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: creates network namespaces and loads programs")
	}
	l, err := lab.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, lab: l, entry: l.Nodes[0], manifests: t.TempDir(), state: stateDir(t), binary: ebb}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.wantPacketsOnly)
	for i, n := range []*lab.Node{l.Nodes[0], l.Nodes[0], l.Nodes[1]} {
		w.addPod(n, fmt.Sprint("web-", i+1))
	}
	w.write("cluster.yaml", clusterManifest(w.entry))
	w.publish(w.pods...)
	return w
}

// stateDir is short enough for the name of a socket in it.
func stateDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ebb-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// addPod starts a pod whose application runs in this process.
func (w *world) addPod(n *lab.Node, name string) {
	w.Helper()
	p, err := n.AddPod(name)
	if err != nil {
		w.Fatal(err)
	}
	suite.ServePod(w, p.NS, name, pod.HTTPPort, pod.UDPPort)
	w.pods = append(w.pods, p)
}

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

// publish makes these pods the endpoints of the service.
func (w *world) publish(pods ...*lab.Pod) {
	w.Helper()
	w.write("endpoints.yaml", sliceManifest("IPv4", pods, func(p *lab.Pod) netip.Addr { return p.Addr4 })+
		"---\n"+sliceManifest("IPv6", pods, func(p *lab.Pod) netip.Addr { return p.Addr6 }))
}

// process is a subcommand of ebb on a node.
type process struct {
	*lab.Process
	t   *testing.T
	out *suite.Output
}

func (w *world) run(args ...string) *process {
	w.Helper()
	return w.start(exec.Command(w.binary, args...))
}

func (w *world) start(cmd *exec.Cmd) *process {
	w.Helper()
	return w.startOn(w.entry, cmd)
}

func (w *world) startOn(n *lab.Node, cmd *exec.Cmd) *process {
	w.Helper()
	p := &process{t: w.T, out: &suite.Output{}}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	var err error
	if p.Process, err = n.Start(cmd); err != nil {
		w.Fatal(err)
	}
	return p
}

// startAgent starts an agent that answers probes itself; it is not ready yet.
func (w *world) startAgent() *process {
	w.Helper()
	return w.startAgentWith("--health-responder", "off")
}

// startAgentWith starts an agent that reads the manifests.
func (w *world) startAgentWith(more ...string) *process {
	w.Helper()
	return w.startAgentOf(append([]string{"--source", "dir:" + w.manifests}, more...)...)
}

// startAgentOf starts an agent with a source of its own.
func (w *world) startAgentOf(source ...string) *process {
	w.Helper()
	return w.run(slices.Concat(w.agentArgs(), source)...)
}

// agentArgs are what all agents are told; of two values of a flag the last counts.
func (w *world) agentArgs() []string {
	return []string{"agent", "--node-name", w.entry.Name(), "--uplink", lab.Uplink, "--cgroup-root", lab.CgroupRoot,
		"--xdp", "native", "--bpffs", bpffs, "--metrics-addr", metricsAddr, "--health-addr", "127.0.0.1:10256",
		"--max-frontends", "64", "--max-backends", "64", "--max-slots", "8192", "--max-flows", "65536", "--max-half-open", "65536",
		"--state-dir", w.state}
}

// startReadyAgent waits until the agent says that all is in the kernel.
func (w *world) startReadyAgent() *process {
	w.Helper()
	p := w.startAgent()
	w.await("the agent to be ready", p, func() error { return w.healthy() })
	return p
}

func (w *world) healthy() error {
	_, err := get(w.Context(), w.entry.NS, healthURL)
	return err
}

// await tries until there is no error, at most as long as patience, and p runs.
func (w *world) await(what string, p *process, try func() error) {
	w.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-p.Done():
			w.Fatalf("waiting for %s: process ended: %v\n%s", what, p.Err(), p.out)
		case <-deadline:
			w.Fatalf("waited for %s: %v\n%s", what, err, p.out)
		case <-tick.C:
		}
	}
}

// wait waits until the process has ended, and returns its exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.Done():
	case <-time.After(patience):
		p.t.Fatalf("does not end\n%s", p.out)
	}
	if exit, ok := p.Err().(*exec.ExitError); ok {
		return exit.ExitCode()
	}
	if p.Err() != nil {
		p.t.Fatal(p.Err())
	}
	return 0
}

// kill ends the process as a crash would.
func (p *process) kill() {
	p.t.Helper()
	if err := p.Kill(); err != nil {
		p.t.Fatal(err)
	}
}

// get asks from inside ns and returns the body of an answer with status 200.
func get(ctx context.Context, ns *lab.NS, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return suite.Get(ctx, ns, url)
}

// httpClient makes a connection for each request, from inside ns.
func httpClient(ns *lab.NS) *http.Client {
	c := suite.HTTPClient(ns)
	c.Timeout = 5 * time.Second
	return c
}

// client is where balancers ask from.
func (w *world) client() *lab.NS { return w.lab.Client }

// metric returns the value of a metric, the sum over all labels.
func (w *world) metric(name string) int {
	w.Helper()
	body, err := get(w.Context(), w.entry.NS, "http://"+metricsAddr+"/metrics")
	if err != nil {
		w.Fatal(err)
	}
	sum, found := 0, false
	for line := range strings.Lines(body) {
		sample, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if sample != name && !strings.HasPrefix(sample, name+"{") {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			w.Fatal(err)
		}
		sum, found = sum+int(n), true
	}
	if !found {
		w.Fatalf("no metric %s in\n%s", name, body)
	}
	return sum
}

func nodeManifest(n *lab.Node) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Node
metadata: {name: %s}
status: {addresses: [{type: InternalIP, address: %s}, {type: InternalIP, address: "%s"}]}
`, n.Name(), n.Addr4, n.Addr6)
}

func clusterManifest(n *lab.Node) string {
	vip4, vip6 := lab.DefaultVIPs()
	return nodeManifest(n) + fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.80
  clusterIPs: [10.96.0.80, "fd00:10:96::80"]
  ipFamilies: [IPv4, IPv6]
  ports:
  - {name: http, protocol: TCP, port: %d, nodePort: %d}
  - {name: echo, protocol: UDP, port: %d, nodePort: %d}
status: {loadBalancer: {ingress: [{ip: %s, ipMode: VIP}, {ip: "%s", ipMode: VIP}]}}
`, httpPort, httpNodePort, echoPort, echoNodePort, vip4, vip6)
}

func sliceManifest(family string, pods []*lab.Pod, addr func(*lab.Pod) netip.Addr) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-%s, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: %s
ports: [{name: http, protocol: TCP, port: %d}, {name: echo, protocol: UDP, port: %d}]
endpoints:
`, strings.ToLower(family), family, pod.HTTPPort, pod.UDPPort)
	for _, p := range pods {
		fmt.Fprintf(&b, "- {addresses: [%q], nodeName: %s}\n", addr(p), p.Node.Name())
	}
	return b.String()
}
