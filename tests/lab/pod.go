package lab

import "net/netip"

// Pod is a namespace behind a node. Unless the lab says otherwise it is routed, as
// a CNI without overlay makes it: single addresses, and a link-local gateway that
// is the node.
type Pod struct {
	*NS
	// Node is where the pod runs.
	Node *Node
	// HostDev is the node's end of the pod's link.
	HostDev string
	// Addr4 and Addr6 are the pod's addresses.
	Addr4, Addr6 netip.Addr
}

func (p *Pod) plugIn() error {
	cfg := p.Node.cfg
	host := end{ns: p.Node.NS, dev: p.HostDev}
	inside := end{ns: p.NS, dev: Uplink}
	if err := connect(inside, host, cfg.podMTU()); err != nil {
		return err
	}
	if cfg.BridgedPods {
		return p.plugIntoBridge(inside, host)
	}
	gateway4, gateway6 := podGateway4.Addr(), podGateway6.Addr()
	err := inside.configure(settings{
		addrs: prefixes(hostPrefix(p.Addr4), hostPrefix(p.Addr6)),
		routes: append([]route{{dst: hostPrefix(gateway4), dev: Uplink}},
			defaultRoutes(Uplink, gateway4, gateway6)...),
		features: cfg.PodLink,
	})
	if err != nil {
		return err
	}
	return host.configure(settings{
		addrs: prefixes(podGateway4, podGateway6),
		routes: []route{
			{dst: hostPrefix(p.Addr4), dev: p.HostDev, src: p.Node.Addr4},
			{dst: hostPrefix(p.Addr6), dev: p.HostDev, src: p.Node.Addr6},
		},
		features: cfg.PodPeer,
	})
}

// Remove kills the processes of the pod, waits for them, and removes its link
// and namespace. Removing twice, or after the lab is closed, is no error.
func (p *Pod) Remove() error {
	p.Node.mu.Lock()
	defer p.Node.mu.Unlock()
	if _, ok := p.Node.pods[p]; !ok {
		return nil
	}
	delete(p.Node.pods, p)
	p.processes.stopIn(p.NS)
	return p.NS.close()
}
