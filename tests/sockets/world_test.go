package sockets

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

const (
	bpffs     = lab.BPFFS + "/ebb"
	healthURL = "127.0.0.1:10256"
	// patience bounds everything that is waited for, quick what must not wait.
	patience = 30 * time.Second
	quick    = 3 * time.Second
	tick     = 20 * time.Millisecond
)

// world is a lab whose first node runs an agent; the client is a pod of that node.
type world struct {
	testing.TB
	lab       *lab.Lab
	node      *lab.Node
	client    *lab.Pod
	pods      map[string]*lab.Pod
	manifests string
	options   []string // of the agent
	agent     *process
}

// newWorld starts a lab with the pods web-1 and web-2 on the node, web-3 on another
// one, as endpoints of the service shop/web, and an agent with options.
func newWorld(t testing.TB, options ...string) *world {
	t.Helper()
	w := newBareWorld(t)
	w.begin(options...)
	return w
}

// begin starts the agent.
func (w *world) begin(options ...string) {
	w.Helper()
	w.options = options
	w.write("web.yaml", webService())
	w.publish("web", "web-1", "web-2", "web-3")
	w.startAgent()
	w.sync("web", "10.96.0.80:80/TCP")
}

func newBareWorld(t testing.TB) *world {
	t.Helper()
	return newWorldIn(t, lab.Config{})
}

// newWorldIn is newBareWorld in a lab of that kind.
func newWorldIn(t testing.TB, cfg lab.Config) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: creates network namespaces and loads programs")
	}
	l, err := lab.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t, lab: l, node: l.Nodes[0], pods: make(map[string]*lab.Pod), manifests: t.TempDir()}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	w.write("node.yaml", fmt.Sprintf(`apiVersion: v1
kind: Node
metadata: {name: %s}
status: {addresses: [{type: InternalIP, address: %s}, {type: InternalIP, address: "%s"}]}
`, w.node.Name(), w.node.Addr4, w.node.Addr6))
	w.client, err = w.node.AddPod("client")
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range []*lab.Node{l.Nodes[0], l.Nodes[0], l.Nodes[1]} {
		w.addApp(n, fmt.Sprint("web-", i+1))
	}
	return w
}

func (w *world) addApp(n *lab.Node, name string) {
	w.Helper()
	p, err := n.AddPod(name)
	if err != nil {
		w.Fatal(err)
	}
	w.pods[name] = p
	suite.ServePod(w, p.NS, name, pod.HTTPPort, pod.UDPPort)
}

// in is w for a test within its test.
func (w *world) in(t *testing.T) *world {
	inner := *w
	inner.TB = t
	return &inner
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

// process is a program in the lab.
type process struct {
	*lab.Process
	out *suite.Output
}

func (w *world) start(ns *lab.NS, cmd *exec.Cmd) *process {
	w.Helper()
	p := &process{out: &suite.Output{}}
	if cmd.Stdout == nil {
		cmd.Stdout = p.out
	}
	cmd.Stderr = p.out
	var err error
	if p.Process, err = ns.Start(cmd); err != nil {
		w.Fatal(err)
	}
	return p
}

// startAgent starts the agent, in the place of one that has ended, and waits until
// all is in the kernel.
func (w *world) startAgent(more ...string) {
	w.Helper()
	w.agent = w.start(w.node.NS, exec.Command(ebb, slices.Concat([]string{"agent", "--source", "dir:" + w.manifests,
		"--node-name", w.node.Name(), "--uplink", lab.Uplink, "--cgroup-root", lab.CgroupRoot, "--xdp", "off", "--bpffs", bpffs, "--metrics-addr", "",
		"--health-addr", healthURL, "--health-responder", "off", "--state-dir", filepath.Join(w.manifests, ".state"),
		"--max-frontends", "256", "--max-backends", "256", "--max-slots", "65536", "--max-flows", "4096",
		"--max-half-open", "4096", "--min-sync-interval", "1ms"}, w.options, more)...))
	w.await("the agent to be ready", w.ready)
}

func (w *world) ready() error {
	conn, err := w.node.Dial(w.Context(), "tcp", healthURL)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = ask(conn, "/healthz")
	return err
}

func (w *world) killAgent() {
	w.Helper()
	if err := w.agent.Kill(); err != nil {
		w.Fatal(err)
	}
}

// await tries until there is no error.
func (w *world) await(what string, try func() error) {
	w.Helper()
	deadline := time.After(patience)
	again := time.NewTicker(tick)
	defer again.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		var ended <-chan struct{}
		if w.agent != nil {
			ended = w.agent.Done()
		}
		select {
		case <-ended:
			w.Fatalf("waiting for %s: the agent ended: %v\n%s", what, w.agent.Err(), w.agent.out)
		case <-deadline:
			w.Fatalf("waited for %s: %v", what, err)
		case <-again.C:
		}
	}
}

// maps calls fn with the pinned maps.
func (w *world) maps(fn func(*maps.Set) error) error {
	return w.node.Do(func() error {
		set, err := maps.Open(loader.MapsDir(bpffs), false)
		if err != nil {
			return err
		}
		return errors.Join(fn(set), set.Close())
	})
}

// sync waits until a frontend is in the maps, with the endpoints that were
// published last for the service.
func (w *world) sync(service, frontend string) {
	w.Helper()
	w.await("frontend "+frontend, func() error {
		return w.maps(func(s *maps.Set) error {
			all, err := s.Frontends().All()
			if err != nil {
				return err
			}
			for f := range all {
				if f.String() == frontend {
					return nil
				}
			}
			return fmt.Errorf("%s: not among %d frontends", service, len(all))
		})
	})
}

// addAddress gives ns one more address on its uplink.
func (w *world) addAddress(ns *lab.NS, addr netip.Addr) {
	w.Helper()
	err := ns.Do(func() error {
		dev, err := netlink.LinkByName(lab.Uplink)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(dev, &netlink.Addr{IPNet: &net.IPNet{
			IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen()),
		}})
	})
	if err != nil {
		w.Fatal(err)
	}
}

// counts returns how calls of sockets ended.
func (w *world) counts() map[maps.Verdict]uint64 {
	w.Helper()
	var counts map[maps.Verdict]uint64
	err := w.maps(func(s *maps.Set) error {
		all, err := s.Counters().All()
		counts = all[maps.HookSocket]
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return counts
}
