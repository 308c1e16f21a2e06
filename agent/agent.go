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
	"time"

	"github.com/ebb-lb/ebb/agent/apply"
	"github.com/ebb-lb/ebb/agent/config"
	"github.com/ebb-lb/ebb/agent/metrics"
	"github.com/ebb-lb/ebb/agent/plan"
	"github.com/ebb-lb/ebb/agent/reconcile"
	"github.com/ebb-lb/ebb/agent/responder"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/agent/sockets"
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
	if err := cfg.CheckEphemeral(); err != nil {
		return err
	}
	state, err := ownState(cfg.Health.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, state.Release()) }()
	k, err := openKernel(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.close()) }()
	store := service.NewStore(time.Now)
	contact := &watch.Contact{Now: time.Now}
	source, err := newSource(cfg, store, contact, log)
	if err != nil {
		return err
	}
	live := &liveCounts{}
	o := newObserver(cfg, k.set, store, contact, live, log)
	p := newProbes(cfg, live, source.warner(), o.complete, log)
	o.registry.MustRegister(p)
	metrics.RegisterPodLinks(o.registry, func() (int, int) { s := k.podLinks.Status(); return s.Attached, s.Failing })
	closer := sockets.New(k.set, cfg.OnBackendGone == config.ResetGone, log)
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
	g, ctx := p.outlive(ctx)
	g.Go(func() error { return source.run(ctx, log) })
	g.Go(func() error { return loop.Run(ctx) })
	g.Go(func() error { return closer.Run(ctx) })
	g.Go(func() error { return collect(ctx, k.set, k.clock, live, o, log) })
	g.Go(func() error { return follow(ctx, k.verify, loop, log) })
	g.Go(func() error { return k.podLinks.Run(ctx) })
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
	p.Runtime, p.PodCIDRs, p.ServiceCIDRs = k.set.Runtime(), k.set.PodCIDRs(), k.set.ServiceCIDRs()
	p.Attach = func(nodeAddrs []netip.Addr) error {
		err := k.attach(cfg.Uplinks, nodeAddrs)
		o.syncs.Attached(err)
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
	c := loader.PodChoice{Auto: cfg.PodLinks.Auto, Patterns: cfg.PodLinks.Patterns}
	switch cfg.DetectLocal {
	case config.DetectBridge:
		c.Bridge = cfg.PodLinks.Bridge
	case config.DetectPrefix:
		c.Prefix = cfg.PodLinks.Prefix
	default:
		return c
	}
	c.Auto = c.Auto || len(c.Patterns) == 0
	return c
}

// kernel is everything the agent holds in the kernel.
type kernel struct {
	lock     *loader.Lock
	set      *maps.Set
	programs *loader.Programs
	attacher *loader.Attacher
	podLinks *loader.PodLinks
	sockets  *loader.SocketAttacher
	cgroup   *loader.Cgroup // nil: no programs on sockets
	clock    *loader.Clock
	netns    uint64 // cookie of the node's network namespace
}

func openKernel(cfg config.Config, log *slog.Logger) (*kernel, error) {
	features, err := loader.Probe()
	if err != nil {
		return nil, err
	}
	for _, w := range features.Warnings() {
		log.Warn("kernel", "warning", w)
	}
	if err := loader.EnsureBPFFS(cfg.BPFFS); err != nil {
		return nil, err
	}
	k := &kernel{}
	if err := k.open(cfg, log); err != nil {
		return nil, errors.Join(err, k.close())
	}
	return k, nil
}

func (k *kernel) open(cfg config.Config, log *slog.Logger) (err error) {
	if k.lock, err = loader.AcquireLock(cfg.BPFFS); err != nil {
		return err
	}
	mode, err := loader.ParseXDPMode(cfg.XDP)
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
		XDP: mode, PodLinks: pods.Any(), SNATMin: cfg.SNATPorts.Min, SNATMax: cfg.SNATPorts.Max, DropUnknownFlows: cfg.DropUnknownFlows,
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
	if k.clock, err = loader.NewClock(); err != nil {
		return err
	}
	k.attacher = loader.NewAttacher(k.programs, loader.LinksDir(cfg.BPFFS), mode, log)
	k.podLinks = loader.NewPodLinks(k.programs, loader.LinksDir(cfg.BPFFS), pods, log)
	return nil
}

// attach brings programs onto the uplinks: the named ones, or those of a node
// with these addresses.
func (k *kernel) attach(names []string, nodeAddrs []netip.Addr) error {
	uplinks, err := loader.Uplinks(names, nodeAddrs)
	if err != nil {
		return err
	}
	k.podLinks.SetUplinks(uplinks)
	if err := k.attacher.Sync(uplinks); err != nil {
		return err
	}
	if err := loader.SyncDevices(k.set.Devices(), k.attacher.Status()); err != nil {
		return err
	}
	return errors.Join(k.attachSockets(), k.attacher.Verify())
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
// of ebb off the devices and out of the kernel.
func Cleanup(bpffs, stateDir string, log *slog.Logger) (err error) {
	if _, err := os.Stat(bpffs); errors.Is(err, os.ErrNotExist) {
		return responder.Remove(stateDir)
	}
	lock, err := loader.AcquireLock(bpffs)
	if err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	a := loader.NewAttacher(nil, loader.LinksDir(bpffs), loader.XDPOff, log)
	p := loader.NewPodLinks(nil, loader.LinksDir(bpffs), loader.PodChoice{}, log)
	s := loader.NewSocketAttacher(nil, loader.LinksDir(bpffs), log)
	return errors.Join(responder.Remove(stateDir), s.DetachAll(), p.DetachAll(), a.DetachAll(), p.Close(), a.Close(), loader.RemovePins(bpffs))
}
