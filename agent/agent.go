// Package agent is the wiring of ebb's agent: it opens what is pinned, loads
// and attaches programs, and connects sources, planner, maps, health and
// metrics. Every decision is made in the packages it connects.
package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/ebb-lb/ebb/agent/apply"
	"github.com/ebb-lb/ebb/agent/config"
	"github.com/ebb-lb/ebb/agent/conntrack"
	"github.com/ebb-lb/ebb/agent/metrics"
	"github.com/ebb-lb/ebb/agent/nexthops"
	"github.com/ebb-lb/ebb/agent/plan"
	"github.com/ebb-lb/ebb/agent/reconcile"
	"github.com/ebb-lb/ebb/agent/responder"
	"github.com/ebb-lb/ebb/agent/secured"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/agent/sockets"
	"github.com/ebb-lb/ebb/agent/sourceports"
	"github.com/ebb-lb/ebb/agent/watch"
	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
)

// healthTimeout is kube-proxy's: twice the sync period.
const healthTimeout = 60 * time.Second

// Run runs an agent until ctx is done, and as much longer as it is told to drain.
// It leaves everything in the kernel as it is: traffic is served on, and the next
// agent takes over.
func Run(ctx context.Context, cfg config.Config, log *slog.Logger) (err error) {
	state, err := ownState(cfg.Health.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, state.Release()) }()
	ports, err := chooseSourcePorts(cfg, log)
	if err != nil {
		return err
	}
	k, err := openKernel(cfg, ports.ports, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.close()) }()
	ports.reserve()
	store := service.NewStore(time.Now)
	contact := &watch.Contact{Now: time.Now}
	source, err := newSource(cfg, store, contact, log)
	if err != nil {
		return err
	}
	live := &liveCounts{}
	o := newObserver(cfg, k.set, store, contact, log)
	p := newProbes(cfg, live, source.warner(), o.complete, log)
	o.registry.MustRegister(p)
	metrics.RegisterUplinks(o.registry, k.uplinks)
	metrics.RegisterPodLinks(o.registry, func() (int, int) { s := k.podLinks.Status(); return s.Attached, s.Failing })
	closer := sockets.New(k.set, cfg.OnBackendGone == config.ResetGone, k.reach(cfg), log)
	loop, err := newLoop(cfg, k, o, reconcile.Parts{
		Store: store, Live: live.of, Health: p.state, Log: log,
		Done: func(r reconcile.Report) {
			o.synced(r)
			if r.Writes > 0 {
				closer.Wake()
			}
		},
	})
	if err != nil {
		return err
	}
	k.secured = secured.New(secured.Parts{
		Kernel: loader.Policies{}, Ranges: k.set.Secured(), Changed: k.nextHops.Changed,
		Settings: secured.SettingsIn(cfg.Health.StateDir), Warn: func(problem string) bool { return p.state.Warn("ipsec", problem) }, Log: log,
	})
	k.secured.Look() // programs are told of routes after this
	g, ctx := p.outlive(ctx)
	g.Go(func() error { return source.run(ctx, log) })
	g.Go(func() error { return loop.Run(ctx) })
	g.Go(func() error { return closer.Run(ctx) })
	g.Go(func() error { return ports.keep(ctx) })
	g.Go(func() error { return newConntrackKeeper(cfg, p.state, log).run(ctx) })
	g.Go(func() error { return collect(ctx, k, live, o, log) })
	g.Go(func() error { return follow(ctx, k, loop, log) })
	g.Go(func() error { return k.podLinks.Run(ctx) })
	g.Go(func() error { return k.nextHops.Run(ctx) })
	g.Go(func() error { return k.secured.Run(ctx) })
	g.Go(func() error { return serve(ctx, cfg, o.registry, log) })
	g.Go(func() error { return p.run(ctx) })
	return g.Wait()
}

// ownState makes the state directory and keeps other agents out of it: each would
// tell the responder something else.
func ownState(dir string) (*loader.Lock, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	lock, err := loader.AcquireLock(dir)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w (each agent of a machine needs its own --state-dir)", err)
	}
	return lock, nil
}

// newLoop returns the loop that keeps the kernel's maps and devices in step.
func newLoop(cfg config.Config, k *kernel, o *observer, p reconcile.Parts) (*reconcile.Loop, error) {
	p.Maps = apply.Targets{
		Frontends: k.set.Frontends(), ServicePorts: k.set.ServicePorts(),
		Backends: k.set.Backends(), Slots: k.set.Slots(), SourceRanges: k.set.SourceRanges(),
		Addresses: k.set.Addresses(maps.ServiceAddress),
	}
	p.PodLinks = k.podLinks.Need
	p.Runtime, p.ServiceCIDRs = k.set.Runtime(), k.set.ServiceCIDRs()
	who := &identity{cfg: cfg, health: p.Health, log: p.Log}
	p.Attach = func(n reconcile.NodeNet) error {
		who.look(n)
		err := k.attach(k.uplinkChoice(cfg, n))
		o.syncs.Attached(err)
		p.Health.Unserved(k.attacher.Unserved())
		return err
	}
	size := k.set.Sizes()
	return reconcile.New(reconcile.Config{
		NodeName: cfg.NodeName, NodeAddrs: cfg.NodeAddrs, NodePorts: cfg.NodePorts,
		HostNetns:         k.netns,
		NodePortsAnywhere: cfg.EastWest != config.EastWestOff && cfg.NodePorts.Anywhere(),
		PodCIDRs:          podCIDRs(cfg),
		MinInterval:       cfg.MinSyncInterval,
		Capacities: plan.Capacities{
			Frontends: size.Frontends, ServicePorts: size.ServicePorts, Backends: size.Backends, Slots: size.Slots,
			SourceRanges: size.SourceRanges,
		},
	}, p)
}

// podCIDRs tells by which ranges pods are known.
func podCIDRs(cfg config.Config) func(service.Node) []netip.Prefix {
	switch cfg.DetectLocal {
	case config.DetectNodeCIDR:
		return func(n service.Node) []netip.Prefix { return n.PodCIDRs }
	case config.DetectBridge, config.DetectPrefix:
		return func(service.Node) []netip.Prefix { return nil }
	}
	return func(service.Node) []netip.Prefix { return cfg.ClusterCIDRs }
}

// podChoice tells which devices are pods' links.
func podChoice(cfg config.Config) loader.PodChoice {
	links := cfg.PodLinks
	c := loader.PodChoice{Auto: links.Auto || links.Demand && len(links.Patterns) == 0, Patterns: links.Patterns}
	switch cfg.DetectLocal {
	case config.DetectBridge:
		c.Bridge = links.Bridge
		return c
	case config.DetectPrefix:
		c.Prefix = links.Prefix
		return c
	}
	if !links.Demand {
		return c
	}
	switch cfg.EastWest {
	case config.EastWestOff:
		return loader.PodChoice{} // what begins on this node is somebody else's
	case config.EastWestSocket:
		c.OnDemand = true
	}
	return c
}

// kernel is everything the agent holds in the kernel.
type kernel struct {
	lock      *loader.Lock
	set       *maps.Set
	programs  *loader.Programs
	attacher  *loader.Attacher
	podLinks  *loader.PodLinks
	sockets   *loader.SocketAttacher
	cgroup    *loader.Cgroup // nil: no programs on sockets
	collector *loader.Collector
	clock     *loader.Clock
	nextHops  *nexthops.Keeper
	secured   *secured.Keeper
	netns     uint64 // cookie of the node's network namespace
	log       *slog.Logger
	warned    map[loader.DeviceWarning]bool // these were logged
}

func openKernel(cfg config.Config, snat sourceports.Range, log *slog.Logger) (*kernel, error) {
	features, err := loader.Probe(loader.Wants{Sockets: cfg.EastWest != config.EastWestOff})
	if err != nil {
		return nil, err
	}
	for _, w := range features.Warnings() {
		log.Warn("kernel", "warning", w)
	}
	if err := loader.EnsureBPFFS(cfg.BPFFS); err != nil {
		return nil, err
	}
	k := &kernel{log: log, warned: make(map[loader.DeviceWarning]bool)}
	if err := k.open(cfg, snat, log); err != nil {
		return nil, errors.Join(err, k.close())
	}
	return k, nil
}

func (k *kernel) open(cfg config.Config, snat sourceports.Range, log *slog.Logger) (err error) {
	if k.lock, err = loader.AcquireLock(cfg.BPFFS); err != nil {
		return err
	}
	mode, err := loader.ParseXDPMode(cfg.XDP)
	if err != nil {
		return err
	}
	unknown, err := loader.ParseUnknownFlow(cfg.UnknownFlow)
	if err != nil {
		return err
	}
	var created bool
	if k.set, created, err = loader.OpenOrCreate(cfg.BPFFS, sizes(cfg.Sizes), log); err != nil {
		return err
	}
	log.Info("maps", "created", created, "pins", loader.MapsDir(cfg.BPFFS))
	pods := podChoice(cfg)
	k.programs, err = loader.Load(loader.Config{
		XDP: mode, PodLinks: pods.Any() && !pods.OnDemand, SNATMin: snat.Min, SNATMax: snat.Max, UnknownFlow: unknown,
		RejectRate: cfg.Answers.RejectRate, RejectTCPReset: cfg.Answers.RejectReset, VIPEcho: cfg.Answers.VIPEcho,
		ResetGone: cfg.OnBackendGone == config.ResetGone,
		Sockets:   cfg.EastWest != config.EastWestOff, PodsByPacket: cfg.EastWest == config.EastWestPacket,
	}, k.set)
	if err != nil {
		return err
	}
	if err := k.openSockets(cfg, log); err != nil {
		return err
	}
	if k.collector, err = loader.NewCollector(k.set); err != nil {
		return err
	}
	if k.clock, err = loader.NewClock(); err != nil {
		return err
	}
	k.attacher = loader.NewAttacher(k.programs, loader.LinksDir(cfg.BPFFS), mode, log)
	k.podLinks = loader.NewPodLinks(k.programs, loader.LinksDir(cfg.BPFFS), pods, log)
	k.nextHops = nexthops.New(nexthops.Parts{
		Routes: k.set.Routes(), InUse: k.set.Neighbours(), Clock: k.clock, Kernel: loader.Routes{},
		Secured: func() bool { return k.secured.Any() }, Log: log,
	})
	return nil
}

// uplinkChoice says which devices are uplinks of a node.
func (k *kernel) uplinkChoice(cfg config.Config, n reconcile.NodeNet) loader.UplinkChoice {
	c := loader.UplinkChoice{
		Names: cfg.Uplinks, NodeAddrs: n.Addrs, PodLinks: podChoice(cfg),
		PodCIDRs: slices.Concat(n.PodCIDRs, cfg.ClusterCIDRs),
	}
	if !n.Known {
		c.Keep = append([]string{}, k.attacher.Devices()...)
	}
	return c
}

// attach brings programs onto the uplinks. Devices that are not required are served
// as well as can be.
func (k *kernel) attach(choice loader.UplinkChoice) error {
	uplinks, err := choice.ChooseAll()
	if err != nil {
		return err
	}
	names := loader.Names(uplinks)
	if choice.Keep == nil {
		k.podLinks.SetUplinks(names)
	}
	k.warn(loader.Names(slices.DeleteFunc(slices.Clone(uplinks), func(u loader.Uplink) bool { return u.Port || u.Answers })))
	// Before programs ask. What they do not know goes a slower way, so they are attached in any case.
	known := errors.Join(loader.SyncStations(k.set.Stations(), names), loader.SyncAddresses(k.set.Addresses(maps.NodeAddress), k.set.Runtime()))
	if err := k.attacher.SyncUplinks(uplinks); err != nil {
		return errors.Join(known, err)
	}
	err = loader.SyncDevices(k.set.Devices(), k.attacher.Status(), loader.DevicesBeside{Chosen: uplinks, NodeAddrs: choice.NodeAddrs})
	k.nextHops.Changed()
	if err != nil {
		return errors.Join(known, err)
	}
	return errors.Join(known, k.attachSockets(), k.attacher.Verify())
}

// warn logs, once each, which settings of uplinks will have packets dropped.
func (k *kernel) warn(uplinks []string) {
	all, err := loader.DeviceWarnings(uplinks)
	if err != nil {
		k.log.Warn("settings of uplinks are not known", "err", err)
	}
	for _, w := range all {
		if !k.warned[w] {
			k.warned[w] = true
			k.log.Warn("uplink", "device", w.Device, "warning", w.Warning)
		}
	}
}

// uplinks tells of each uplink whether it is served.
func (k *kernel) uplinks() map[string]bool {
	served := make(map[string]bool)
	for _, name := range k.attacher.Devices() {
		served[name] = true
	}
	for name := range k.attacher.Unserved() {
		served[name] = false
	}
	return served
}

// sizes fills in the defaults.
func sizes(want maps.Sizes) maps.Sizes {
	def := maps.DefaultSizes()
	return maps.Sizes{
		Frontends:    cmp.Or(want.Frontends, def.Frontends),
		ServicePorts: cmp.Or(want.ServicePorts, def.ServicePorts),
		Backends:     cmp.Or(want.Backends, def.Backends),
		Slots:        cmp.Or(want.Slots, def.Slots),
		Flows:        cmp.Or(want.Flows, def.Flows),
		HalfOpen:     cmp.Or(want.HalfOpen, def.HalfOpen),
		Closed:       cmp.Or(want.Closed, def.Closed),
		Affinity:     cmp.Or(want.Affinity, def.Affinity),
		SourceRanges: cmp.Or(want.SourceRanges, def.SourceRanges),
	}
}

// close releases what the process holds; what is pinned stays.
func (k *kernel) close() error {
	var errs []error
	if k.podLinks != nil {
		errs = append(errs, k.podLinks.Close())
	}
	if k.attacher != nil {
		errs = append(errs, k.attacher.Close())
	}
	if k.cgroup != nil {
		errs = append(errs, k.cgroup.Close())
	}
	if k.clock != nil {
		errs = append(errs, k.clock.Close())
	}
	if k.collector != nil {
		errs = append(errs, k.collector.Close())
	}
	if k.programs != nil {
		errs = append(errs, k.programs.Close())
	}
	if k.set != nil {
		errs = append(errs, k.set.Close())
	}
	if k.lock != nil {
		errs = append(errs, k.lock.Release())
	}
	return errors.Join(errs...)
}

// Cleanup ends the responder, so that balancers leave first, and takes everything
// of ebb off the devices and out of the kernel. It gives the node's settings back last.
func Cleanup(bpffs, stateDir string, log *slog.Logger) (err error) {
	settings := func() error {
		return errors.Join(sourceports.ReservationIn(stateDir).Release(), conntrack.KeptIn(stateDir).Release(), secured.SettingsIn(stateDir).Release())
	}
	if _, err := os.Stat(bpffs); errors.Is(err, os.ErrNotExist) {
		return errors.Join(settings(), responder.Remove(stateDir))
	}
	lock, err := loader.AcquireLock(bpffs)
	if err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	a := loader.NewAttacher(nil, loader.LinksDir(bpffs), loader.XDPOff, log)
	p := loader.NewPodLinks(nil, loader.LinksDir(bpffs), loader.PodChoice{}, log)
	s := loader.NewSocketAttacher(nil, loader.LinksDir(bpffs), log)
	return errors.Join(responder.Quit(stateDir), s.DetachAll(), p.DetachAll(), a.DetachAll(), p.Close(), a.Close(), loader.RemovePins(bpffs),
		settings(), responder.Remove(stateDir))
}
