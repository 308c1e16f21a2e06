package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ebb-lb/ebb/tests/lab"
)

const (
	nodeName = "node"
	podCount = 2
	podPort  = 8080
)

// contender is a way to get from the client to the pods.
type contender struct {
	name     string
	services int
	// install makes the node balance services. Without it the client connects to the
	// pods themselves.
	install func(ctx context.Context, w *world) error
}

// contenders returns all there are; the first is plain routing.
func contenders(cfg config) []contender {
	all := []contender{{name: "routing", services: 1}}
	add := func(name string, install func(context.Context, *world) error) {
		for _, n := range cfg.services {
			all = append(all, contender{fmt.Sprintf("%s/%d", name, n), n, install})
		}
	}
	add("nft", installRules)
	for _, p := range cfg.programs {
		label := p.label
		if label != "" {
			label = "@" + label
		}
		add("ebb-tc"+label, installAgent(p.path, "off"))
		add("ebb-xdp"+label, installAgent(p.path, "native"))
	}
	return all
}

// world is the network of one contender.
type world struct {
	contender
	lab     *lab.Lab
	node    *lab.Node
	client  *lab.NS
	pods    []*lab.Pod
	servers []*server
	tested  service
	// targets are what the client connects to, in turns.
	targets []netip.AddrPort
	flows   flowNumbers
	// forget, if set, removes what the node knows of flows of earlier turns.
	forget func() error
	nice   int
	// cleanups are called in reverse order.
	cleanups []func() error
}

// newWorld sets up a contender, with servers in its pods. On error nothing is left
// behind.
func newWorld(ctx context.Context, k contender, nice int) (*world, error) {
	w := &world{contender: k, nice: nice}
	for _, step := range []func(context.Context) error{w.build, w.serve, w.balance} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, w.close())
		}
	}
	return w, nil
}

// build makes the network. The client takes the place of the lab's router: the
// fewer hops, the less of what the contenders differ in is hidden by what they share.
//
// All contenders have the link that XDP needs, which is the one a network card
// makes: frames of at most the MTU with finished checksums, put together by GRO.
func (w *world) build(context.Context) error {
	link := lab.NativeXDPPeer()
	link.PassXDP = false // nothing comes back to the client by XDP_TX
	l, err := lab.New(context.Background(), lab.Config{
		Nodes: []string{nodeName}, VIPs: []netip.Addr{serviceAddr(w.services / 2)},
		UplinkPeer: link, NodeUplink: lab.Features{GRO: lab.On},
	})
	if err != nil {
		return err
	}
	w.lab, w.node, w.client = l, l.Nodes[0], l.Router
	w.cleanups = append(w.cleanups, l.Close)
	for i := range podCount {
		p, err := w.node.AddPod(fmt.Sprint("pod-", i+1))
		if err != nil {
			return err
		}
		w.pods = append(w.pods, p)
		w.targets = append(w.targets, netip.AddrPortFrom(p.Addr4, podPort))
	}
	return w.client.Do(func() error { return errors.Join(w.routeToPods(), prepareClient()) })
}

// routeToPods works in the namespace of the client.
func (w *world) routeToPods() error {
	cidr := w.node.PodCIDR4
	dst, err := netlink.ParseIPNet(cidr.String())
	if err != nil {
		return err
	}
	if err := netlink.RouteReplace(&netlink.Route{Dst: dst, Gw: w.node.Addr4.AsSlice()}); err != nil {
		return fmt.Errorf("add route to %s: %w", cidr, err)
	}
	return nil
}

func (w *world) serve(context.Context) error {
	for _, p := range w.pods {
		s, err := newServer(p.NS, podPort, w.nice)
		if err != nil {
			return fmt.Errorf("serve in %s: %w", p.Name(), err)
		}
		w.servers = append(w.servers, s)
		w.cleanups = append(w.cleanups, s.close)
	}
	return nil
}

func (w *world) balance(ctx context.Context) error {
	if w.install == nil {
		return nil
	}
	w.tested = testedService(w)
	w.targets = []netip.AddrPort{netip.AddrPortFrom(w.tested.addr, servicePort)}
	return w.install(ctx, w)
}

func (w *world) close() error {
	var errs []error
	for i := len(w.cleanups) - 1; i >= 0; i-- {
		errs = append(errs, w.cleanups[i]())
	}
	w.cleanups = nil
	return errors.Join(errs...)
}

// target returns where the i-th connection goes.
func (w *world) target(i int) netip.AddrPort { return w.targets[i%len(w.targets)] }

// turn returns the rate of r for about as long as d. No traffic at all is an error.
func (w *world) turn(r row, d time.Duration) (float64, error) {
	if w.forget != nil {
		if err := w.forget(); err != nil {
			return 0, err
		}
	}
	rate, err := r.measure(w, d)
	if err == nil && rate <= 0 {
		err = errors.New("no traffic arrives")
	}
	return rate, err
}
