package pathmtu

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

const (
	metricsURL = "http://127.0.0.1:10249/metrics"
	healthURL  = "http://127.0.0.1:10256/healthz"
	// patience bounds everything that is waited for.
	patience  = 30 * time.Second
	lookEvery = 20 * time.Millisecond
	// starting bounds the wait for an agent: its programs take a minute to load in
	// an emulated machine.
	starting = 3 * time.Minute
)

// world is a lab with an agent on the first node and two services, one with its
// pod there, the other on the second node.
type world struct {
	*testing.T
	lab           *lab.Lab
	entry         *lab.Node
	local, remote service
	control       func(syscall.Conn) error // applied to the client's sockets; nil: nothing
	agent         *lab.Process
	said          *suite.Output
}

// newWorld builds one whose agent runs in an XDP mode.
func newWorld(t *testing.T, xdp string) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: creates network namespaces and loads programs")
	}
	w := &world{T: t, said: &suite.Output{}}
	w.local = service{name: "here", vip4: netip.MustParseAddr("203.0.113.20"), vip6: netip.MustParseAddr("2001:db8:113::20")}
	w.remote = service{name: "there", vip4: netip.MustParseAddr("203.0.113.21"), vip6: netip.MustParseAddr("2001:db8:113::21")}
	cfg := lab.Config{VIPs: []netip.Addr{w.local.vip4, w.local.vip6, w.remote.vip4, w.remote.vip6}}
	if xdp == "native" {
		cfg.UplinkPeer = lab.NativeXDPPeer()
	}
	if xdp == "generic" { // which sees unfinished checksums, and no offsets of them
		cfg.UplinkPeer = lab.Features{TxChecksum: lab.Off}
	}
	var err error
	if w.lab, err = lab.New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.lab.Close(); err != nil {
			t.Error(err)
		}
	})
	w.entry = w.lab.Nodes[0]
	w.local.pod = w.addPod(w.lab.Nodes[0])
	w.remote.pod = w.addPod(w.lab.Nodes[1])
	w.startAgent(xdp)
	return w
}

// addPod starts a pod whose application runs in this process.
func (w *world) addPod(n *lab.Node) *lab.Pod {
	w.Helper()
	p, err := n.AddPod("pod-" + n.Name())
	if err != nil {
		w.Fatal(err)
	}
	for name, serveConn := range map[string]func(net.Conn){"source": serveSource, "sink": serveSink} {
		l, err := p.Listen(w.Context(), "tcp", fmt.Sprint(":", ports()[name].pod))
		if err != nil {
			w.Fatal(err)
		}
		w.Cleanup(func() { l.Close() })
		go serve(l, serveConn)
	}
	c, err := p.ListenPacket(w.Context(), "udp", fmt.Sprint(":", ports()["echo"].pod))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { c.Close() })
	if err := mayFragment(c.(*net.UDPConn)); err != nil {
		w.Fatal(err)
	}
	go echo(c)
	return p
}

// startAgent returns when all is in the kernel.
func (w *world) startAgent(xdp string) {
	w.Helper()
	dir, err := os.MkdirTemp("", "ebb-")
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			w.Error(err)
		}
	})
	manifests := filepath.Join(dir, "m")
	if err := os.Mkdir(manifests, 0o700); err != nil {
		w.Fatal(err)
	}
	text := nodeManifest(w.entry) + w.local.manifest(20) + w.remote.manifest(21)
	if err := os.WriteFile(filepath.Join(manifests, "all.yaml"), []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
	cmd := exec.Command(ebb, "agent", "--source", "dir:"+manifests, "--node-name", w.entry.Name(), "--uplink", lab.Uplink, "--cgroup-root", lab.CgroupRoot,
		"--xdp", xdp, "--bpffs", lab.BPFFS+"/ebb", "--state-dir", dir, "--health-responder", "off",
		"--metrics-addr", "127.0.0.1:10249", "--health-addr", "127.0.0.1:10256",
		"--max-frontends", "64", "--max-backends", "64", "--max-slots", "8192", "--max-flows", "65536", "--max-half-open", "65536")
	cmd.Stdout, cmd.Stderr = w.said, w.said
	if w.agent, err = w.entry.Start(cmd); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := w.agent.Kill(); err != nil {
			w.Error(err)
		}
	})
	w.awaitAgent()
}

func (w *world) awaitAgent() {
	w.Helper()
	deadline := time.After(starting)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		_, err := w.get(healthURL)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-w.agent.Done():
			w.Fatalf("the agent has ended: %v\n%s", w.agent.Err(), w.said)
		case <-deadline:
			w.Fatalf("the agent is not ready: %v\n%s", err, w.said)
		}
	}
}

// get asks on the entry node and returns the body of an answer with status 200.
func (w *world) get(url string) (string, error) {
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	return suite.Get(ctx, w.entry.NS, url)
}

// packets returns how many packets left a hook of the entry node with a verdict.
func (w *world) packets(hook, verdict string) int {
	w.Helper()
	body, err := w.get(metricsURL)
	if err != nil {
		w.Fatal(err)
	}
	name := fmt.Sprintf("ebb_packets_total{hook=%q,verdict=%q} ", hook, verdict)
	_, rest, ok := strings.Cut(body, name)
	var n float64
	if _, err := fmt.Sscan(rest, &n); !ok || err != nil {
		w.Fatalf("no metric %sin\n%s", name, body)
	}
	return int(n)
}
