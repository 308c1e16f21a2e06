package plantest

import (
	"fmt"
	stdmaps "maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/ebb-lb/ebb/agent/plan"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// NodeName is the node of a Cluster.
const NodeName = "here"

// Cluster is a small random cluster in which services come, change, fight for
// frontends and go, and endpoints go through their lives.
type Cluster struct {
	Services map[service.Name]service.View
	// Zone is where the node is.
	Zone string

	rng   *rand.Rand
	dirty map[service.Name]bool
}

// NewCluster returns an empty cluster whose history is determined by rng.
func NewCluster(rng *rand.Rand) *Cluster {
	return &Cluster{Services: make(map[service.Name]service.View), rng: rng, dirty: make(map[service.Name]bool)}
}

// Step changes a few services.
func (c *Cluster) Step() {
	for range 1 + c.rng.IntN(4) {
		name := service.Name{Namespace: "shop", Name: string(rune('a' + c.rng.IntN(6)))}
		c.dirty[name] = true
		v, ok := c.Services[name]
		switch {
		case !ok, c.rng.IntN(6) == 0:
			c.Services[name] = c.newView(name)
		case c.rng.IntN(8) == 0:
			delete(c.Services, name)
		default:
			c.Services[name] = service.View{Name: name, Service: v.Service, Endpoints: c.endpoints(v)}
		}
	}
}

// Shrink deletes all services but those with the first n names.
func (c *Cluster) Shrink(n int) {
	for i, name := range slices.SortedFunc(stdmaps.Keys(c.Services), service.Name.Compare) {
		if i >= n {
			c.dirty[name] = true
			delete(c.Services, name)
		}
	}
}

// zones are all there are; "" is none.
func zones() []string { return []string{"", "east", "west"} }

// Move takes the node to some zone. The next Input must be full.
func (c *Cluster) Move() { c.Zone = zones()[c.rng.IntN(len(zones()))] }

// Touch marks a service as changed without changing it.
func (c *Cluster) Touch(name service.Name) { c.dirty[name] = true }

// Input returns what a planner is told: what changed since the last Input, or
// everything.
func (c *Cluster) Input(full bool) plan.Input {
	in := plan.Input{NodeName: NodeName, Zone: c.Zone, NodePortAddrs: nodeAddrs(), Full: full}
	if full {
		for _, v := range c.Services {
			in.Services = append(in.Services, v)
		}
	} else {
		for name := range c.dirty {
			v := c.Services[name]
			v.Name = name
			in.Services = append(in.Services, v)
		}
	}
	clear(c.dirty)
	return in
}

func nodeAddrs() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
}

func (c *Cluster) one(of int) bool { return c.rng.IntN(of) == 0 }

// newView returns a service with random frontends out of few.
func (c *Cluster) newView(name service.Name) service.View {
	n := int(name.Name[0] - 'a')
	if c.one(10) {
		n = 0 // the ClusterIP of another service
	}
	s := &service.Service{Name: name, InternalPolicy: service.Policy(c.rng.IntN(2)), ExternalPolicy: service.Policy(c.rng.IntN(2))}
	if !c.one(5) {
		s.ClusterIPs = append(s.ClusterIPs, netip.AddrFrom4([4]byte{10, 96, 0, byte(n)}))
	}
	if c.one(2) || len(s.ClusterIPs) == 0 {
		s.ClusterIPs = append(s.ClusterIPs, netip.MustParseAddr(fmt.Sprintf("fd00:96::%x", n+1)))
	}
	if c.one(3) {
		s.ExternalIPs = []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, byte(c.rng.IntN(3))})}
	}
	if c.one(3) {
		s.LoadBalancerIPs = []netip.Addr{
			netip.AddrFrom4([4]byte{203, 0, 113, byte(c.rng.IntN(2))}), netip.MustParseAddr("2001:db8:1::1"),
		}
	}
	if c.one(6) { // k3s gives Services the addresses of nodes
		s.LoadBalancerIPs = append(s.LoadBalancerIPs, nodeAddrs()...)
	}
	if len(s.LoadBalancerIPs) > 0 && !c.one(3) {
		s.LoadBalancerSourceRanges = c.ranges()
	}
	if c.one(3) {
		s.AffinityTimeout = time.Duration(1+c.rng.IntN(2)) * time.Hour
	}
	s.Ports = c.ports()
	v := service.View{Name: name, Service: s}
	v.Endpoints = c.endpoints(v)
	return v
}

func (c *Cluster) ranges() []netip.Prefix {
	var some []netip.Prefix
	for _, text := range []string{"192.0.2.0/24", "198.51.100.7/32", "0.0.0.0/0", "2001:db8:2::/48", "::/0"} {
		if c.one(2) {
			some = append(some, netip.MustParsePrefix(text))
		}
	}
	return some
}

func (c *Cluster) ports() []service.Port {
	all := []service.Port{
		{PortKey: service.PortKey{Name: "http", Proto: service.TCP}, Port: 80},
		{PortKey: service.PortKey{Name: "https", Proto: service.TCP}, Port: 443},
		{PortKey: service.PortKey{Name: "http", Proto: service.UDP}, Port: 80},
	}
	var some []service.Port
	for i, p := range all {
		if c.one(3) {
			p.NodePort = uint16(30000 + c.rng.IntN(2))
		}
		if i == 0 || c.one(2) {
			some = append(some, p)
		}
	}
	return some
}

// endpoints moves each endpoint of v on, and lets some come.
func (c *Cluster) endpoints(v service.View) map[service.PortKey][]service.Endpoint {
	all := make(map[service.PortKey][]service.Endpoint)
	for _, p := range v.Service.Ports {
		var eps []service.Endpoint
		for _, e := range v.Endpoints[p.PortKey] {
			if c.one(3) {
				e = c.age(e)
			}
			if !e.Terminating || !c.one(3) {
				eps = append(eps, e)
			}
		}
		for range c.rng.IntN(3) {
			if e := c.newEndpoint(); !has(eps, e.Addr) {
				eps = append(eps, e)
			}
		}
		all[p.PortKey] = eps
	}
	return all
}

func has(eps []service.Endpoint, a netip.AddrPort) bool {
	for _, e := range eps {
		if e.Addr == a {
			return true
		}
	}
	return false
}

func (c *Cluster) newEndpoint() service.Endpoint {
	a := netip.AddrFrom4([4]byte{10, 0, 0, byte(c.rng.IntN(8))})
	if c.one(3) {
		a = netip.MustParseAddr(fmt.Sprintf("fd00::%x", 1+c.rng.IntN(4)))
	}
	nodes := []string{NodeName, "there", ""}
	ready := !c.one(4)
	e := service.Endpoint{
		Addr: netip.AddrPortFrom(a, 8080), NodeName: nodes[c.rng.IntN(len(nodes))], Ready: ready, Serving: ready || c.one(2),
	}
	c.hint(&e)
	return e
}

// hint says whom e is for. Hints count only where all endpoints have one: most
// do.
func (c *Cluster) hint(e *service.Endpoint) {
	e.ZoneHints, e.NodeHints = "", ""
	if !c.one(6) {
		e.ZoneHints = service.NewNameSet(zones()[c.rng.IntN(len(zones()))], zones()[1+c.rng.IntN(len(zones())-1)])
	}
	if c.one(2) {
		e.NodeHints = service.NewNameSet([]string{NodeName, "there"}[c.rng.IntN(2)])
	}
}

// age takes an endpoint one step further in its life.
func (c *Cluster) age(e service.Endpoint) service.Endpoint {
	switch {
	case c.one(6):
		c.hint(&e)
	case e.Ready && !c.one(3):
		e.Ready, e.Terminating = false, true
	case e.Ready:
		e.Ready, e.Serving = false, false
	case e.Terminating:
		e.Serving = e.Serving && !c.one(2)
	default:
		e.Ready, e.Serving = true, true
	}
	return e
}

// Busy gives random indexes of k live flows.
func (c *Cluster) Busy(k *Kernel) {
	clear(k.Flows)
	for id := range k.content.backends {
		if c.one(4) {
			k.Flows[id] = 1
		}
	}
}

// serviceOf returns the service a frontend value belongs to.
func (k *Kernel) serviceOf(id maps.ServicePortID) service.Name {
	p := k.content.ports[id]
	return service.Name{Namespace: p.Namespace, Name: p.Service}
}
