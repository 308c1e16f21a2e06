package sockets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
)

// endpointCase is what endpoints a service has, and by whom the two policies have it
// served: kube-proxy's CategorizeEndpoints, without topology.
type endpointCase struct {
	name           string
	published      []string // a name that ends in "-" terminates and serves
	cluster, local []string
}

// web-1 is on the node, web-3 on another one.
func endpointCases() []endpointCase {
	return []endpointCase{
		{"ready here and there", []string{"web-1", "web-3"}, []string{"web-1", "web-3"}, []string{"web-1"}},
		{"ready there", []string{"web-3"}, []string{"web-3"}, nil},
		{"terminating here, ready there", []string{"web-1-", "web-3"}, []string{"web-3"}, []string{"web-1"}},
		{"terminating here", []string{"web-1-"}, []string{"web-1"}, []string{"web-1"}},
		{"none", nil, nil, nil},
	}
}

// policyCase is a service of its own: one combination of policies and endpoints.
type policyCase struct {
	endpointCase
	number                       int
	externalLocal, internalLocal bool
}

func policyCases() []policyCase {
	var all []policyCase
	for _, e := range endpointCases() {
		for _, external := range []bool{false, true} {
			for _, internal := range []bool{false, true} {
				all = append(all, policyCase{e, len(all) + 1, external, internal})
			}
		}
	}
	return all
}

func (p policyCase) String() string {
	return fmt.Sprintf("%s, external %s, internal %s", p.name, policy(p.externalLocal), policy(p.internalLocal))
}

func policy(local bool) string {
	if local {
		return "Local"
	}
	return "Cluster"
}

// service is the name of its Service.
func (p policyCase) service() string { return fmt.Sprint("case-", p.number) }

// nodePort is that of TCP and of UDP.
func (p policyCase) nodePort() uint16 { return uint16(30100 + p.number) }

func (p policyCase) addrs(v4, v6 string) []netip.Addr {
	return []netip.Addr{netip.MustParseAddr(fmt.Sprint(v4, p.number)), netip.MustParseAddr(fmt.Sprintf("%s%x", v6, p.number))}
}

func (p policyCase) clusterIPs() []netip.Addr  { return p.addrs("10.96.1.", "fd00:10:96:1::") }
func (p policyCase) balancers() []netip.Addr   { return p.addrs("203.0.113.", "2001:db8:113::") }
func (p policyCase) externalIPs() []netip.Addr { return p.addrs("192.88.99.", "2001:db8:88::") }

func (p policyCase) manifest() string {
	c, b, e := p.clusterIPs(), p.balancers(), p.externalIPs()
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %s, namespace: shop}
spec:
  type: LoadBalancer
  externalTrafficPolicy: %s
  internalTrafficPolicy: %s
  clusterIP: %s
  clusterIPs: [%s, "%s"]
  ipFamilies: [IPv4, IPv6]
  externalIPs: [%s, "%s"]
  ports:
  - {name: http, protocol: TCP, port: %d, nodePort: %d}
  - {name: echo, protocol: UDP, port: %d, nodePort: %d}
status: {loadBalancer: {ingress: [{ip: %s, ipMode: VIP}, {ip: "%s", ipMode: VIP}]}}
`, p.service(), policy(p.externalLocal), policy(p.internalLocal), c[0], c[0], c[1], e[0], e[1],
		httpPort, p.nodePort(), echoPort, p.nodePort(), b[0], b[1])
}

// origin is where a client is.
type origin struct {
	name   string
	ns     *lab.NS
	inside bool // a pod or process of the node: known by its socket
}

// contacts are the frontends of p at the node: ClusterIPs go by the internal policy,
// all others by the external one.
func (p policyCase) contacts(node *lab.Node) map[string][]netip.Addr {
	return map[string][]netip.Addr{
		"ClusterIP": p.clusterIPs(), "load balancer": p.balancers(), "external IP": p.externalIPs(),
		"node port": {node.Addr4, node.Addr6},
	}
}

// want returns who may serve a client, else how it fails.
func (p policyCase) want(from origin, frontend string) (pods []string, failure error) {
	local := p.externalLocal && !from.inside // who is inside comes as if by the load balancer
	if frontend == "ClusterIP" {
		local = p.internalLocal
	}
	pods = p.cluster
	if local {
		pods = p.local
	}
	switch {
	case len(pods) > 0:
		return pods, nil
	case len(p.published) == 0:
		return nil, unix.ECONNREFUSED
	case from.inside:
		return nil, unix.EHOSTUNREACH // the call fails, no packet is dropped
	}
	return nil, os.ErrDeadlineExceeded
}

// silence is how long a client that must not be answered waits.
const silence = time.Second

// askers ask at the same time.
const askers = 32

// ask asks once. Who is not answered gets [os.ErrDeadlineExceeded].
func (w *world) ask(ns *lab.NS, network, addr string, bound time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(w.Context(), bound)
	defer cancel()
	conn, err := ns.Dial(ctx, network, addr)
	if ctx.Err() != nil {
		return "", os.ErrDeadlineExceeded
	}
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	name, err := nameOf(conn)
	if err != nil && ctx.Err() != nil {
		return "", os.ErrDeadlineExceeded
	}
	return name, err
}

// check asks a few times and reports what does not become of it. A client that is to
// be answered may have to wait on a busy machine.
func (w *world) check(ns *lab.NS, network, addr string, pods []string, failure error) error {
	bound, times := quick, 3
	if failure != nil {
		times = 1
	}
	if errors.Is(failure, os.ErrDeadlineExceeded) {
		bound = silence
	}
	for range times {
		got, err := w.ask(ns, network, addr, bound)
		switch {
		case failure != nil && !errors.Is(err, failure):
			return fmt.Errorf("got %q, %v; want %v", got, err, failure)
		case failure == nil && (err != nil || !slices.Contains(pods, got)):
			return fmt.Errorf("got %q, %v; want %v", got, err, pods)
		}
	}
	return nil
}

// wantPolicy checks every frontend of p, in g.
func (w *world) wantPolicy(g *errgroup.Group, p policyCase, from origin) {
	for frontend, addrs := range p.contacts(w.node) {
		pods, failure := p.want(from, frontend)
		for _, a := range addrs {
			for network, port := range map[string]uint16{"tcp": httpPort, "udp": echoPort} {
				if frontend == "node port" {
					port = p.nodePort()
				}
				g.Go(func() error {
					if err := w.check(from.ns, network, netip.AddrPortFrom(a, port).String(), pods, failure); err != nil {
						w.Errorf("%s to %s %s %s (%s): %v", from.name, network, frontend, a, p, err)
					}
					return nil
				})
			}
		}
	}
}

// routeTo leads what from sends to addrs through a node, not the router, which does
// not know the way back to pods.
func (w *world) routeTo(from, node *lab.Node, addrs []netip.Addr) {
	w.Helper()
	err := from.Do(func() error {
		dev, err := netlink.LinkByName(lab.Uplink)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			via := node.Addr6
			if a.Is4() {
				via = node.Addr4
			}
			err := netlink.RouteReplace(&netlink.Route{LinkIndex: dev.Attrs().Index, Gw: via.AsSlice(),
				Dst: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
}

// What arrives at an uplink is external, whoever sent it; pods and processes of the
// node are inside. Each origin at each frontend, under each policy, whatever
// endpoints there are.
func TestOriginsFrontendsAndPolicies(t *testing.T) {
	for name, options := range map[string][]string{
		"xdp": {"--xdp", "native"},
		"tc":  {"--xdp", "off"},
		// That pods of other nodes are known to be pods makes no difference.
		"tc, pods are known": {"--xdp", "off", "--cluster-cidr", "10.244.0.0/16,fd00:244::/32"},
	} {
		t.Run(name, func(t *testing.T) { testOrigins(t, options...) })
	}
}

func testOrigins(t *testing.T, options ...string) {
	cfg := lab.Config{UplinkPeer: lab.NativeXDPPeer()}
	for _, p := range policyCases() {
		cfg.VIPs = append(cfg.VIPs, slices.Concat(p.clusterIPs(), p.balancers(), p.externalIPs())...)
	}
	w := newWorldIn(t, cfg)
	for _, p := range policyCases() {
		w.write(p.service()+".yaml", p.manifest())
		w.publish(p.service(), p.published...)
	}
	there := w.lab.Nodes[1]
	w.routeTo(there, w.node, cfg.VIPs)
	away, err := there.AddPod("away")
	if err != nil {
		t.Fatal(err)
	}
	w.options = append(options, "--max-frontends", "1024", "--max-backends", "1024")
	w.startAgent()
	for _, from := range []origin{
		{"a client outside", w.lab.Client, false},
		{"a pod of another node", away.NS, false},
		{"another node, as its masqueraded pods", there.NS, false},
		{"a pod of the node", w.client.NS, true},
		{"a process of the node", w.node.NS, true},
	} {
		t.Run(strings.ReplaceAll(from.name, ",", ""), func(t *testing.T) {
			w := w.in(t)
			var g errgroup.Group
			g.SetLimit(askers)
			for _, p := range policyCases() {
				w.wantPolicy(&g, p, from)
			}
			_ = g.Wait() // what failed is reported
		})
	}
}
