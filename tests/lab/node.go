package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
)

// maxPods keeps pod numbers within the last byte of an IPv4 address. Numbers
// are never reused, so that no pod inherits what the network knows of another.
const maxPods = 250

// Node is a machine of the cluster: forwarding on, default route by the
// router, private mounts and control group (see BPFFS and CgroupRoot).
type Node struct {
	*NS
	// Addr4 and Addr6 are the addresses of the uplink.
	Addr4, Addr6 netip.Addr
	// PodCIDR4 and PodCIDR6 hold the addresses of the node's pods.
	PodCIDR4, PodCIDR6 netip.Prefix

	cfg    Config
	number int

	mu   sync.Mutex
	last int // number of the newest pod
	pods map[*Pod]struct{}
}

func newNode(name string, number int, cfg Config, p *processes) (*Node, error) {
	ns, err := newNS(name, true, p)
	if err != nil {
		return nil, err
	}
	n := &Node{NS: ns, cfg: cfg, number: number, pods: map[*Pod]struct{}{}}
	a4, a6 := nodeAddrs(number)
	n.Addr4, n.Addr6 = a4.Addr(), a6.Addr()
	n.PodCIDR4, n.PodCIDR6 = podCIDRs(number)
	return n, nil
}

// plugInto connects the uplink to the bridge of router.
func (n *Node) plugInto(router *NS, cfg Config) error {
	if err := n.Do(setForwarding); err != nil {
		return err
	}
	port := end{ns: router, dev: "port-" + n.Name()}
	uplink := end{ns: n.NS, dev: Uplink}
	if err := connect(uplink, port, cfg.MTU); err != nil {
		return err
	}
	if err := router.Do(func() error { return enslave(port.dev, bridgeName) }); err != nil {
		return err
	}
	if err := port.configure(settings{features: cfg.UplinkPeer}); err != nil {
		return err
	}
	a4, a6 := nodeAddrs(n.number)
	err := uplink.configure(settings{
		addrs:    prefixes(a4, a6),
		routes:   defaultRoutes(Uplink, routerOnSegment4.Addr(), routerOnSegment6.Addr()),
		features: cfg.NodeUplink,
	})
	if err != nil {
		return err
	}
	return n.Do(n.addPodNetwork)
}

// AddPod creates a pod on the node. Its name is free; its addresses are ones
// no other pod of the node has had. The pod is removed with the lab, or before
// by (*Pod).Remove.
func (n *Node) AddPod(name string) (*Pod, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.last >= maxPods {
		return nil, fmt.Errorf("add pod %s to %s: %d pods have been created, no address left", name, n.Name(), n.last)
	}
	ns, err := newNS(name, false, n.processes)
	if err != nil {
		return nil, fmt.Errorf("add pod to %s: %w", n.Name(), err)
	}
	n.last++
	ns.cgroup = n.cgroup
	p := &Pod{NS: ns, Node: n, HostDev: fmt.Sprintf("pod%d", n.last)}
	p.Addr4, p.Addr6 = podAddrs(n.PodCIDR4, n.PodCIDR6, n.last)
	if err := p.plugIn(); err != nil {
		return nil, errors.Join(fmt.Errorf("add pod %s to %s: %w", name, n.Name(), err), ns.close())
	}
	n.pods[p] = struct{}{}
	return p, nil
}

// close removes the pods and the node.
func (n *Node) close() error {
	n.mu.Lock()
	var errs []error
	for p := range n.pods {
		errs = append(errs, p.NS.close())
	}
	clear(n.pods)
	n.mu.Unlock()
	return errors.Join(append(errs, n.NS.close())...)
}
