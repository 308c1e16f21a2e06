// Package cluster tests ebb's agent beside a real Kubernetes control plane: the
// API server, etcd, and the controllers that make Services work. Pods are real
// processes. All tests share one cluster, and one client that keeps a service of
// it under load throughout: whatever a test does, that service must not suffer.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/ebb-lb/ebb/tests/cluster/binaries"
	"github.com/ebb-lb/ebb/tests/cluster/control"
	"github.com/ebb-lb/ebb/tests/cluster/fault"
	"github.com/ebb-lb/ebb/tests/cluster/kubelet"
	"github.com/ebb-lb/ebb/tests/lab"
)

// Names and addresses of the cluster.
const (
	nodeA, nodeB = "node-a", "node-b"
	machine      = "control"
	faultPort    = 7443

	agentNamespace, agentAccount = "kube-system", "ebb"
)

var (
	serviceRange4 = netip.MustParsePrefix("10.96.0.0/16")
	serviceRange6 = netip.MustParsePrefix("fd00:10:96::/112")
	// extraRange is for a ServiceCIDR that comes later.
	extraRange = netip.MustParsePrefix("10.97.0.0/24")
	// outside is where addresses of load balancers, and external ones, are from.
	outside4 = netip.MustParsePrefix("203.0.113.0/24")
	outside6 = netip.MustParsePrefix("2001:db8:113::/64")
)

// cluster is what all tests share.
type cluster struct {
	lab    *lab.Lab
	entry  *lab.Node // where traffic to service addresses enters
	other  *lab.Node
	plane  *control.Plane
	proxy  *fault.Proxy
	client kubernetes.Interface
	// kubeconfigs of the agents: direct, and by way of the proxy.
	direct, indirect string
	agents           map[string]*agent // by node
	kubelets         []*kubelet.Kubelet
	load             *client
	said             *said

	stop context.CancelFunc
	work sync.WaitGroup
	dir  string
}

// said is what pods have written. Safe for concurrent use.
type said struct {
	mu    sync.Mutex
	lines map[string][]string // by pod
}

func (s *said) add(pod types.NamespacedName, line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines[pod.Name] = append(s.lines[pod.Name], line)
}

var (
	sharedMu sync.Mutex
	shared   *cluster
	broken   error
)

// getShared returns the cluster, built by the first test that asks. It is not a
// test's own: building it takes longer than most tests.
func getShared(t *testing.T) *cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: creates network namespaces and loads programs")
	}
	sharedMu.Lock()
	defer sharedMu.Unlock()
	if shared == nil && broken == nil {
		c := &cluster{agents: map[string]*agent{}, said: &said{lines: map[string][]string{}}}
		if broken = c.build(); broken == nil {
			shared = c
		} else {
			broken = errors.Join(broken, c.close())
		}
	}
	if broken != nil {
		t.Fatal(broken)
	}
	return shared
}

func closeShared() error {
	sharedMu.Lock()
	defer sharedMu.Unlock()
	if shared == nil {
		return nil
	}
	return shared.close()
}

func (c *cluster) build() error {
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"lab", c.buildLab}, {"control plane", c.startPlane}, {"nodes", c.createNodes}, {"kubelets", c.startKubelets},
		{"access of agents", c.grantAccess}, {"agents", c.startAgents}, {"load", c.startLoad},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("build cluster: %s: %w", step.name, err)
		}
	}
	return nil
}

func (c *cluster) buildLab(ctx context.Context) (err error) {
	if c.dir, err = os.MkdirTemp("", "ebb-cluster-"); err != nil {
		return err
	}
	c.lab, err = lab.New(ctx, lab.Config{Nodes: []string{nodeA, nodeB, machine}, UplinkPeer: lab.NativeXDPPeer()})
	if err != nil {
		return err
	}
	c.entry, c.other = c.lab.Node(nodeA), c.lab.Node(nodeB)
	return c.lab.Router.Do(func() error {
		for _, p := range []netip.Prefix{serviceRange4, serviceRange6, extraRange, outside4, outside6} {
			if err := routeBy(c.entry, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// routeBy leads p to a node, in the namespace of the calling thread.
func routeBy(n *lab.Node, p netip.Prefix) error {
	via := n.Addr6
	if p.Addr().Is4() {
		via = n.Addr4
	}
	_, dst, err := netParse(p)
	if err != nil {
		return err
	}
	if err := netlink.RouteReplace(&netlink.Route{Dst: dst, Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("route %s by %s: %w", p, n.Name(), err)
	}
	return nil
}

func (c *cluster) startPlane(ctx context.Context) error {
	programs, err := binaries.Ensure(ctx, "kube", os.Stderr)
	if err != nil {
		return err
	}
	m := c.lab.Node(machine)
	c.plane, err = control.Start(ctx, control.Config{
		Programs: programs, Machine: m.NS, Addrs: []netip.Addr{m.Addr4, m.Addr6},
		ServiceRanges: []netip.Prefix{serviceRange4, serviceRange6},
		Audited:       []string{agentUser}, Dir: c.dir,
	})
	if err != nil {
		return err
	}
	admin, err := c.plane.Admin()
	if err != nil {
		return err
	}
	if c.client, err = kubernetes.NewForConfig(admin); err != nil {
		return err
	}
	cert, key, ca := c.plane.ServingPair()
	c.proxy, err = fault.Listen(ctx, fault.Config{Machine: m.NS, Server: c.plane.Server(), Cert: cert, Key: key, CA: ca}, faultPort)
	return err
}

// nodes are those that pods run on.
func (c *cluster) nodes() []*lab.Node { return []*lab.Node{c.entry, c.other} }

func (c *cluster) startKubelets(ctx context.Context) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var names []string
	for _, n := range c.nodes() {
		names = append(names, n.Name())
		k := kubelet.New(kubelet.Config{
			Client: c.client, Node: n, Program: "/proc/self/exe", Told: c.said.add, Log: log,
		})
		c.kubelets = append(c.kubelets, k)
		c.work.Go(func() { logError(log, k.Run(ctx)) })
	}
	c.work.Go(func() { logError(log, kubelet.Bind(ctx, c.client, names, log)) })
	return nil
}

func logError(log *slog.Logger, err error) {
	if err != nil {
		log.Error("work of the cluster", "error", err)
	}
}

func (c *cluster) startAgents(ctx context.Context) error {
	for _, n := range c.nodes() {
		a, err := c.startAgent(n, c.direct)
		if err != nil {
			return err
		}
		if err := a.awaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// close ends everything, and checks what only the end can tell.
func (c *cluster) close() error {
	var errs []error
	if c.load != nil {
		errs = append(errs, c.load.close())
	}
	if c.stop != nil {
		c.stop()
	}
	c.work.Wait()
	if c.proxy != nil {
		errs = append(errs, c.proxy.Close())
	}
	if c.lab != nil {
		errs = append(errs, c.lab.Close())
	}
	if keep := os.Getenv("CLUSTER_LOGS"); keep != "" {
		errs = append(errs, os.CopyFS(filepath.Join(keep, strings.TrimPrefix(c.dir, os.TempDir())), os.DirFS(c.dir)))
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}
