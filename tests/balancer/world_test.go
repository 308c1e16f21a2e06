package balancer

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/agent/responder"
	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

const (
	bpffs = lab.BPFFS + "/ebb"
	// patience bounds everything that is waited for.
	patience  = 20 * time.Second
	lookEvery = 10 * time.Millisecond
	// quiet is how long a pod that ends waits for somebody to ask it: longer than
	// HAProxy takes to notice.
	quiet = 800 * time.Millisecond

	healthPort                = 10256
	clusterPort, localPort    = 30080, 30081
	localProbePort            = 32081
	autoscalerTaint           = "ToBeDeletedByClusterAutoscaler"
	serviceCluster, serviceIn = "by-cluster", "by-local"
)

// world is a lab of three nodes with an agent and a pod each.
type world struct {
	*testing.T
	lab       *lab.Lab
	dir       string // of manifests, state and sockets
	manifests string
	agents    map[*lab.Node]*process
	pods      map[*lab.Node]*runningPod
	ending    map[*runningPod]bool
	named     int
}

// runningPod is a pod whose application runs in this process.
type runningPod struct {
	*lab.Pod
	drain chan struct{}
	ended chan error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: creates network namespaces and loads programs")
	}
	if _, err := exec.LookPath("haproxy"); err != nil {
		t.Fatal("HAProxy is not installed: apt-get install --no-install-recommends haproxy")
	}
	l, err := lab.New(t.Context(), lab.Config{Nodes: []string{"node-a", "node-b", "node-c"}, UplinkPeer: lab.NativeXDPPeer()})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "ebb-") // short: there are sockets in it
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		T: t, lab: l, dir: dir, manifests: filepath.Join(dir, "m"), agents: map[*lab.Node]*process{},
		pods: map[*lab.Node]*runningPod{}, ending: map[*runningPod]bool{},
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(w.manifests, 0o700); err != nil {
		t.Fatal(err)
	}
	w.publishServices()
	for _, n := range l.Nodes {
		w.publishNode(n, "")
		w.startPod(n)
	}
	w.publish()
	var agents sync.WaitGroup
	for _, n := range l.Nodes {
		a := w.startAgent(n)
		agents.Go(func() { w.awaitGood(n, a) })
	}
	agents.Wait()
	return w
}

// startPod starts the pod of a node.
func (w *world) startPod(n *lab.Node) {
	w.Helper()
	w.named++
	name := fmt.Sprint("web-", w.named)
	p, err := n.AddPod(name)
	if err != nil {
		w.Fatal(err)
	}
	l, err := p.Listen(w.Context(), "tcp", fmt.Sprint(":", pod.HTTPPort))
	if err != nil {
		w.Fatal(err)
	}
	c, err := p.ListenPacket(w.Context(), "udp", fmt.Sprint(":", pod.UDPPort))
	if err != nil {
		w.Fatal(err)
	}
	r := &runningPod{Pod: p, drain: make(chan struct{}), ended: make(chan error, 1)}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		r.ended <- pod.New(pod.Config{Name: name, Quiet: quiet, Bound: patience}).Run(ctx, l, c, r.drain)
	}()
	w.Cleanup(stop)
	w.pods[n] = r
}

// endPod begins the end of a node's pod, and waits for it.
func (w *world) endPod(n *lab.Node) {
	w.Helper()
	old := w.pods[n]
	w.ending[old] = true
	delete(w.pods, n)
	w.publish()
	close(old.drain)
	select {
	case err := <-old.ended:
		if err != nil {
			w.Error(err)
		}
	case <-time.After(patience):
		w.Fatalf("the pod on %s does not end", n.Name())
	}
	delete(w.ending, old)
	w.publish()
}

type process struct {
	*lab.Process
	out *suite.Output
}

func (w *world) start(ns *lab.NS, name string, args ...string) *process {
	w.Helper()
	p := &process{out: &suite.Output{}}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = p.out, p.out
	var err error
	if p.Process, err = ns.Start(cmd); err != nil {
		w.Fatal(err)
	}
	return p
}

func (w *world) stateDir(n *lab.Node) string { return filepath.Join(w.dir, n.Name()) }

// startAgent starts the agent of a node; the responder it may leave is ended
// with the test.
func (w *world) startAgent(n *lab.Node) *process {
	w.Helper()
	p := w.start(n.NS, ebb, "agent", "--source", "dir:"+w.manifests, "--node-name", n.Name(), "--uplink", lab.Uplink, "--cgroup-root", lab.CgroupRoot,
		"--xdp", "native", "--bpffs", bpffs, "--metrics-addr", "", "--state-dir", w.stateDir(n),
		"--max-frontends", "64", "--max-backends", "64", "--max-slots", "8192", "--max-flows", "65536", "--max-half-open", "65536")
	w.agents[n] = p
	w.Cleanup(func() {
		if err := p.Kill(); err != nil {
			w.Error(err)
		}
		if err := responder.Quit(w.stateDir(n)); err != nil {
			w.Error(err)
		}
	})
	return p
}

// awaitGood waits until the node is in rotation by its own word.
func (w *world) awaitGood(n *lab.Node, p *process) {
	client := suite.HTTPClient(n.NS)
	client.Timeout = time.Second
	url := "http://" + netip.AddrPortFrom(n.Addr4, healthPort).String() + "/healthz"
	w.await("a good answer of "+n.Name(), func() bool {
		resp, err := client.Get(url)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, p)
}

// await waits until ok, and says what processes have said if it does not come.
func (w *world) await(what string, ok func() bool, about ...*process) time.Duration {
	w.Helper()
	began := time.Now()
	deadline := time.After(patience)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			w.Errorf("waited for %s", what)
			for _, p := range about {
				w.Log(p.out)
			}
			return patience
		}
	}
	return time.Since(began)
}

// command runs a command of ebb to its end.
func (w *world) command(n *lab.Node, args ...string) {
	w.Helper()
	p := w.start(n.NS, ebb, args...)
	<-p.Done()
	if p.Err() != nil {
		w.Fatalf("ebb %v: %v\n%s", args, p.Err(), p.out)
	}
}
