// Package lab builds small networks out of network namespaces: a client, a
// router, nodes with an uplink each, and pods behind the nodes. It knows links,
// addresses, routes, offloads and processes. It deliberately knows nothing
// about ebb: it is the ground that tests and "ebb demo" stand on.
//
//	client ── router ══ bridge ═╤═ nodeA ── pods
//	                            └─ nodeB ── pods
//
// The router knows nodes and virtual addresses, but no pod addresses, so a
// packet that reaches the client with a pod's address proves a missing
// translation. Every namespace is anonymous and kept by an open file only:
// when the process dies, in whatever way, the kernel takes everything apart.
package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Lab is a running network. Its methods are safe for concurrent use.
type Lab struct {
	// Client is where load comes from.
	Client *NS
	// Router is the network between the client and the nodes.
	Router *NS
	// Nodes are in the order of Config.Nodes. They belong to the Lab.
	Nodes []*Node

	cfg       Config
	processes *processes
	closeOnce sync.Once
	closeErr  error
}

// New builds the network that cfg describes. It needs root. On error nothing
// is left behind; on success the caller owns the Lab and closes it.
func New(ctx context.Context, cfg Config) (*Lab, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("lab config: %w", err)
	}
	l := &Lab{cfg: cfg, processes: newProcesses()}
	for _, step := range []func() error{l.buildRouter, l.buildClient, l.buildNodes, l.connectNodes, l.routeVIPs} {
		if err := ctx.Err(); err != nil {
			return nil, errors.Join(err, l.Close())
		}
		if err := step(); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

// Node returns the node called name, or nil if there is none.
func (l *Lab) Node(name string) *Node {
	i := slices.IndexFunc(l.Nodes, func(n *Node) bool { return n.Name() == name })
	if i < 0 {
		return nil
	}
	return l.Nodes[i]
}

// Close kills the processes started in the lab, waits for them, and removes
// links and namespaces. Only the first call does so; later ones return its result.
func (l *Lab) Close() error {
	l.closeOnce.Do(func() { l.closeErr = l.close() })
	return l.closeErr
}

func (l *Lab) close() error {
	l.processes.close()
	var errs []error
	for _, n := range l.Nodes {
		errs = append(errs, n.close())
	}
	for _, ns := range []*NS{l.Client, l.Router} {
		if ns != nil {
			errs = append(errs, ns.close())
		}
	}
	return errors.Join(errs...)
}

func (l *Lab) buildRouter() error {
	ns, err := newNS("router", false, l.processes)
	if err != nil {
		return err
	}
	l.Router = ns
	return ns.Do(func() error {
		if err := setForwarding(); err != nil {
			return err
		}
		return addBridge(bridgeName, l.cfg.MTU, routerOnSegment4, routerOnSegment6)
	})
}

func (l *Lab) buildClient() error {
	ns, err := newNS("client", false, l.processes)
	if err != nil {
		return err
	}
	l.Client = ns
	router := end{ns: l.Router, dev: "client"}
	client := end{ns: ns, dev: Uplink}
	if err := connect(client, router, l.cfg.MTU); err != nil {
		return err
	}
	if err := router.configure(settings{addrs: prefixes(routerForClient4, routerForClient6)}); err != nil {
		return err
	}
	return client.configure(settings{
		addrs:    prefixes(client4, client6),
		routes:   defaultRoutes(Uplink, routerForClient4.Addr(), routerForClient6.Addr()),
		features: l.cfg.ClientLink,
	})
}

func (l *Lab) buildNodes() error {
	for i, name := range l.cfg.Nodes {
		n, err := newNode(name, i+1, l.cfg, l.processes)
		if err != nil {
			return err
		}
		l.Nodes = append(l.Nodes, n)
		if err := n.plugInto(l.Router, l.cfg); err != nil {
			return fmt.Errorf("node %s: %w", name, err)
		}
	}
	return nil
}

// connectNodes gives every node a route to the pods of every other node.
func (l *Lab) connectNodes() error {
	for _, n := range l.Nodes {
		for _, peer := range l.Nodes {
			if n == peer {
				continue
			}
			err := n.Do(func() error {
				if l.cfg.Overlay {
					return n.tunnelTo(peer)
				}
				return errors.Join(
					addRoute(route{dst: peer.PodCIDR4, via: peer.Addr4, dev: Uplink}),
					addRoute(route{dst: peer.PodCIDR6, via: peer.Addr6, dev: Uplink}))
			})
			if err != nil {
				return fmt.Errorf("node %s: %w", n.Name(), err)
			}
		}
	}
	return nil
}

func (l *Lab) routeVIPs() error {
	return l.RouteVIPs(l.cfg.VIPNode)
}

// RouteVIPs makes the router send the virtual addresses to the node called name.
func (l *Lab) RouteVIPs(name string) error {
	n := l.Node(name)
	if n == nil {
		return fmt.Errorf("route virtual addresses to %s: no such node", name)
	}
	return l.Router.Do(func() error {
		for _, vip := range l.cfg.VIPs {
			via := n.Addr6
			if vip.Is4() {
				via = n.Addr4
			}
			if err := addRoute(route{dst: hostPrefix(vip), via: via, dev: bridgeName}); err != nil {
				return err
			}
		}
		return nil
	})
}
