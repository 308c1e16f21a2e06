package stations

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

const (
	bpffs     = lab.BPFFS + "/ebb"
	healthURL = "http://127.0.0.1:10256/healthz"
	// patience bounds everything that is waited for, loading how long an agent takes to
	// load its programs, also where the machine is emulated.
	patience  = 30 * time.Second
	loading   = 6 * time.Minute
	lookEvery = 20 * time.Millisecond

	httpPort, echoPort = 80, 5353
	bridge             = "br0" // of the router
)

// modes are the values of --xdp that are tried.
var modes = []string{"native", "off"}

// world is a lab with a service that has a pod on each of two nodes.
type world struct {
	*testing.T
	lab         *lab.Lab
	here, there *lab.Node // clients come by here
	manifests   string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: creates network namespaces and loads programs")
	}
	features := lab.NativeXDPPeer()
	l, err := lab.New(t.Context(), lab.Config{UplinkPeer: features, NodeUplink: lab.Features{VLAN: lab.Off}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{T: t, lab: l, here: l.Nodes[0], there: l.Nodes[1], manifests: t.TempDir()}
	text := nodeManifest(w.here) + "---\n" + nodeManifest(w.there) + "---\n" + serviceManifest()
	text += "---\n" + w.sliceManifest()
	if err := os.WriteFile(filepath.Join(w.manifests, "all.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// sliceManifest starts a pod on each node, whose application runs in this process.
func (w *world) sliceManifest() string {
	w.Helper()
	var v4, v6 strings.Builder
	for _, n := range w.lab.Nodes {
		p, err := n.AddPod("web-" + n.Name())
		if err != nil {
			w.Fatal(err)
		}
		suite.ServePod(w, p.NS, n.Name(), pod.HTTPPort, pod.UDPPort)
		fmt.Fprintf(&v4, "- {addresses: [%q], nodeName: %s}\n", p.Addr4, n.Name())
		fmt.Fprintf(&v6, "- {addresses: [%q], nodeName: %s}\n", p.Addr6, n.Name())
	}
	slice := `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-%s, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: %s
ports: [{name: http, protocol: TCP, port: %d}, {name: echo, protocol: UDP, port: %d}]
endpoints:
%s`
	return fmt.Sprintf(slice, "v4", "IPv4", pod.HTTPPort, pod.UDPPort, v4.String()) + "---\n" +
		fmt.Sprintf(slice, "v6", "IPv6", pod.HTTPPort, pod.UDPPort, v6.String())
}

func nodeManifest(n *lab.Node) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Node
metadata: {name: %s}
status: {addresses: [{type: InternalIP, address: %s}, {type: InternalIP, address: "%s"}]}
`, n.Name(), n.Addr4, n.Addr6)
}

func serviceManifest() string {
	vip4, vip6 := lab.DefaultVIPs()
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.80
  clusterIPs: [10.96.0.80, "fd00:10:96::80"]
  ipFamilies: [IPv4, IPv6]
  ports:
  - {name: http, protocol: TCP, port: %d}
  - {name: echo, protocol: UDP, port: %d}
status: {loadBalancer: {ingress: [{ip: %s, ipMode: VIP}, {ip: "%s", ipMode: VIP}]}}
`, httpPort, echoPort, vip4, vip6)
}

// startAgent returns once all is in the kernel.
func (w *world) startAgent(n *lab.Node, xdp string, uplinks ...string) {
	w.Helper()
	out := &suite.Output{}
	cmd := exec.Command(ebb, "agent", "--source", "dir:"+w.manifests, "--node-name", n.Name(), "--uplink", strings.Join(uplinks, ","),
		"--xdp", xdp, "--east-west", "off", "--bpffs", bpffs, "--metrics-addr", "", "--health-addr", "127.0.0.1:10256",
		"--health-responder", "off", "--state-dir", filepath.Join(w.manifests, ".state-"+n.Name()),
		"--max-frontends", "64", "--max-backends", "64", "--max-slots", "8192", "--max-flows", "65536", "--max-half-open", "65536")
	cmd.Stdout, cmd.Stderr = out, out
	p, err := n.Start(cmd)
	if err != nil {
		w.Fatal(err)
	}
	deadline := time.After(loading)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for w.get(n.NS, healthURL) != nil {
		select {
		case <-p.Done():
			w.Fatalf("agent of %s: %v\n%s", n.Name(), p.Err(), out)
		case <-deadline:
			w.Fatalf("agent of %s: not ready\n%s", n.Name(), out)
		case <-tick.C:
		}
	}
	w.Cleanup(func() {
		if w.Failed() {
			w.Logf("agent of %s:\n%s", n.Name(), out)
		}
	})
}

// get asks once, by a connection of its own.
func (w *world) get(ns *lab.NS, url string) error {
	ctx, cancel := context.WithTimeout(w.Context(), 5*time.Second)
	defer cancel()
	_, err := suite.Get(ctx, ns, url)
	return err
}

// ask sends one datagram and awaits its echo.
func (w *world) ask(to netip.AddrPort) error {
	conn, err := w.lab.Client.Dial(w.Context(), "udp", to.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 64))
	return err
}

// wantService connects n times to each address of the service, and asks as often.
func (w *world) wantService(n int) {
	w.Helper()
	vip4, vip6 := lab.DefaultVIPs()
	for _, vip := range []netip.Addr{vip4, vip6} {
		url := "http://" + netip.AddrPortFrom(vip, httpPort).String() + "/echo/x"
		w.wantAll(n, "connections to "+vip.String(), func() error { return w.get(w.lab.Client, url) })
		w.wantAll(n, "datagrams to "+vip.String(), func() error { return w.ask(netip.AddrPortFrom(vip, echoPort)) })
	}
}

// wantAll gives up after a few errors: each may take seconds.
func (w *world) wantAll(n int, what string, try func() error) {
	w.Helper()
	failed := 0
	var last error
	for i := range n {
		if err := try(); err != nil {
			last, failed = err, failed+1
		}
		if failed == 5 || i == n-1 {
			w.Logf("%s: %d of %d failed", what, failed, i+1)
			break
		}
	}
	if failed > 0 {
		w.Errorf("%s failed, the last: %v", what, last)
	}
}

// verdicts sums up what the programs on the uplinks of n have counted.
func (w *world) verdicts(n *lab.Node) map[maps.Verdict]uint64 {
	w.Helper()
	sum := make(map[maps.Verdict]uint64)
	err := n.Do(func() error {
		set, err := maps.Open(loader.MapsDir(bpffs), true)
		if err != nil {
			return err
		}
		all, err := set.Counters().All()
		for _, h := range []maps.Hook{maps.HookXDP, maps.HookTCIngress} {
			for v, n := range all[h] {
				sum[v] += n
			}
		}
		return errors.Join(err, set.Close())
	})
	if err != nil {
		w.Fatal(err)
	}
	return sum
}

// do runs fn in ns. Where the kernel has no devices of a kind the test is skipped.
func (w *world) do(ns *lab.NS, fn func() error) {
	w.Helper()
	err := ns.Do(fn)
	if errors.Is(err, unix.EOPNOTSUPP) {
		w.Skipf("the kernel lacks devices of this kind: %v", err)
	}
	if err != nil {
		w.Fatal(err)
	}
}

// index returns the ifindex of a device of the calling thread's namespace.
func index(dev string) (int, error) {
	l, err := netlink.LinkByName(dev)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", dev, err)
	}
	return l.Attrs().Index, nil
}

// addUpper makes a device on another, gives it addresses and sets it up.
func addUpper(upper netlink.Link, lower string, addrs ...netip.Prefix) error {
	parent, err := index(lower)
	if err != nil {
		return err
	}
	upper.Attrs().ParentIndex = parent
	if err := netlink.LinkAdd(upper); err != nil {
		return fmt.Errorf("add %s: %w", upper.Attrs().Name, err)
	}
	return raise(upper, addrs...)
}

func raise(dev netlink.Link, addrs ...netip.Prefix) error {
	for _, p := range addrs {
		a, err := netlink.ParseAddr(p.String())
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(dev, a); err != nil {
			return fmt.Errorf("add %s: %w", p, err)
		}
	}
	return netlink.LinkSetUp(dev)
}

// via makes packets for dst leave by dev to a next hop.
func via(dst, hop netip.Addr, dev string) error {
	l, err := index(dev)
	if err != nil {
		return err
	}
	_, to, err := net.ParseCIDR(netip.PrefixFrom(dst, dst.BitLen()).String())
	if err != nil {
		return err
	}
	return netlink.RouteReplace(&netlink.Route{LinkIndex: l, Dst: to, Gw: hop.AsSlice(), Flags: int(netlink.FLAG_ONLINK)})
}

// awaitService returns once the agent has heard of what was changed under it.
func (w *world) awaitService() {
	w.Helper()
	vip4, vip6 := lab.DefaultVIPs()
	deadline := time.After(patience)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		err := errors.Join(w.ask(netip.AddrPortFrom(vip4, echoPort)), w.ask(netip.AddrPortFrom(vip6, echoPort)))
		if err == nil {
			return
		}
		select {
		case <-deadline:
			w.Fatal(err)
		case <-tick.C:
		}
	}
}
