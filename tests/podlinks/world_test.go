package podlinks

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

const (
	bpffs     = lab.BPFFS + "/ebb"
	healthURL = "http://127.0.0.1:10256/healthz"
	// patience bounds everything that is waited for.
	patience = 30 * time.Second
	// loading bounds how long an agent takes to load its programs, also where the
	// machine is emulated.
	loading   = 2 * time.Minute
	lookEvery = 10 * time.Millisecond
)

// world is a lab of two nodes with an agent each, and services with a pod here,
// a pod there, the pod that asks, and all of them.
type world struct {
	*testing.T
	lab              *lab.Lab
	manifests        string
	here, there      *lab.Node
	agents           map[*lab.Node]*process
	asker            *lab.Pod // came after the agents
	near, far        *lab.Pod
	self, same, away service
	local, all       service
}

func newWorld(t *testing.T, cfg lab.Config) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: creates network namespaces and loads programs")
	}
	w := &world{
		T: t, manifests: t.TempDir(), agents: map[*lab.Node]*process{},
		self: newService("self", 11), same: newService("same", 12), away: newService("away", 13),
		local: newService("local", 14).balanced(14), all: newService("all", 15).balanced(15),
	}
	w.local.local = true
	cfg.UplinkPeer = lab.NativeXDPPeer()
	cfg.VIPs = []netip.Addr{w.local.vip4, w.local.vip6, w.all.vip4, w.all.vip6}
	l, err := lab.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	w.lab, w.here, w.there = l, l.Nodes[0], l.Nodes[1]
	w.near, w.far = w.addPod(w.here, "near"), w.addPod(w.there, "far")
	w.write("nodes.yaml", nodeManifest(w.here)+"---\n"+nodeManifest(w.there))
	for _, s := range []service{w.self, w.same, w.away, w.local, w.all} {
		w.write(s.name+".yaml", s.manifest())
	}
	for _, n := range l.Nodes {
		w.startAgent(n)
	}
	for _, n := range l.Nodes {
		w.awaitReady(n)
	}
	w.asker = w.addPod(w.here, "asker")
	w.publish(w.self, w.asker)
	w.publish(w.same, w.near)
	w.publish(w.away, w.far)
	w.publish(w.local, w.far)
	w.publish(w.all, w.asker, w.near, w.far)
	for _, s := range []service{w.self, w.same, w.away, w.local, w.all} {
		w.await("answers of "+s.name, w.agents[w.here], func() error {
			_, err := w.ask(w.asker.NS, s.cluster6, "/echo/ready")
			return err
		})
	}
	return w
}

// agentFlags are all flags of the agent of a node.
func (w *world) agentFlags(n *lab.Node) []string {
	return []string{
		"--source", "dir:" + w.manifests, "--node-name", n.Name(), "--uplink", lab.Uplink, "--cgroup-root", lab.CgroupRoot, "--pod-link", "auto", "--east-west", "packet",
		"--xdp", "native", "--bpffs", bpffs, "--metrics-addr", "", "--health-addr", "127.0.0.1:10256", "--health-responder", "off",
		"--state-dir", filepath.Join(w.manifests, ".state-"+n.Name()),
		"--max-frontends", "64", "--max-backends", "64", "--max-slots", "8192", "--max-flows", "65536", "--max-half-open", "65536",
	}
}

func (w *world) startAgent(n *lab.Node) {
	w.Helper()
	w.agents[n] = w.start(n.NS, append([]string{"agent"}, w.agentFlags(n)...)...)
}

// awaitReady waits until the agent says that all is in the kernel.
func (w *world) awaitReady(n *lab.Node) {
	w.Helper()
	w.awaitWithin(loading, "the agent on "+n.Name(), w.agents[n], func() error {
		_, err := w.get(n.NS, healthURL)
		return err
	})
}

// addPod starts a pod whose application runs in this process.
func (w *world) addPod(n *lab.Node, name string) *lab.Pod {
	w.Helper()
	p, err := n.AddPod(name)
	if err != nil {
		w.Fatal(err)
	}
	suite.ServePod(w, p.NS, name, pod.HTTPPort, pod.UDPPort)
	return p
}

// process is one of ebb.
type process struct {
	*lab.Process
	out *suite.Output
}

func (w *world) start(ns *lab.NS, args ...string) *process {
	w.Helper()
	p := &process{out: &suite.Output{}}
	cmd := exec.Command(ebb, args...)
	cmd.Stdout, cmd.Stderr = p.out, p.out
	var err error
	if p.Process, err = ns.Start(cmd); err != nil {
		w.Fatal(err)
	}
	return p
}

// await tries until there is no error, at most as long as patience, and p runs.
func (w *world) await(what string, p *process, try func() error) {
	w.Helper()
	w.awaitWithin(patience, what, p, try)
}

func (w *world) awaitWithin(bound time.Duration, what string, p *process, try func() error) {
	w.Helper()
	deadline := time.After(bound)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	err := errors.New("not tried")
	for err != nil {
		select {
		case <-p.Done():
			w.Fatalf("waiting for %s: process ended: %v\n%s", what, p.Err(), p.out)
		case <-deadline:
			w.Fatalf("waited for %s: %v\n%s", what, err, p.out)
		case <-tick.C:
			err = try()
		}
	}
}
