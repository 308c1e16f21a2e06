package agent

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/ebb-lb/ebb/agent/config"
	"github.com/ebb-lb/ebb/agent/drain"
	"github.com/ebb-lb/ebb/agent/health"
	"github.com/ebb-lb/ebb/agent/responder"
	"github.com/ebb-lb/ebb/agent/service"
)

// ResponderCommand is the command of this program that is a responder.
const ResponderCommand = "health-responder"

// warner tells people about probes that cannot be answered.
type warner interface {
	ServiceProbesRefused(name service.Name, why string)
	NodeProbesRefused(why string)
}

// probes hands what health says to whoever answers probes.
type probes struct {
	cfg     config.Config
	state   *health.State
	changed chan struct{}
	events  warner // nil: only the log
	log     *slog.Logger

	mu     sync.Mutex
	status responder.Status
}

func newProbes(cfg config.Config, live *liveCounts, events warner, complete func() time.Time, log *slog.Logger) *probes {
	p := &probes{cfg: cfg, changed: make(chan struct{}, 1), events: events, log: log}
	p.state = &health.State{
		Timeout: healthTimeout, Now: time.Now, Complete: complete,
		// A directory need not say that this node exists; the cluster must.
		Rules:         drain.Rules{Signals: cfg.Health.DrainSignals, NeedObject: cfg.Source.Dir == ""},
		DrainServices: cfg.Health.DrainServices,
		ChosenAddrs:   len(cfg.NodePorts.CIDRs) > 0,
		Connections:   live.byService,
		Notify:        p.notify,
	}
	return p
}

func (p *probes) notify() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// run answers probes, or has them answered, until ctx is done.
func (p *probes) run(ctx context.Context) error {
	c := &responder.Client{
		Dir: p.cfg.Health.StateDir, Update: p.update, Report: p.report, Changed: p.changed, Log: p.log,
	}
	switch p.cfg.Health.Responder {
	case "off":
		return c.Serve(ctx, responder.NewServer(health.OrderFileIn(c.Dir)))
	case "start":
		c.Start = func() error { return responder.Start(c.Dir, ResponderCommand, "--state-dir", c.Dir) }
	}
	return c.Run(ctx)
}

func (p *probes) update() responder.Update {
	u := responder.Update{Addr: p.cfg.HealthAddr, StaleAfter: p.cfg.Health.StaleAfter}
	v, certain := p.state.View()
	u.Complete = v.Node.Complete
	if certain {
		u.View = &v
	}
	return u
}

// report tells about sockets that could not be opened, once each.
func (p *probes) report(s responder.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := make(map[responder.Failure]bool)
	for _, f := range p.status.Failed {
		before[f] = true
	}
	p.status = s
	for _, f := range s.Failed {
		if !before[f] {
			p.warn(f)
		}
	}
}

func (p *probes) warn(f responder.Failure) {
	node := f.Service == service.Name{}
	p.log.Error("probes are not answered", "addr", f.Addr, "service", f.Service.String(), "error", f.Error)
	switch {
	case p.events == nil:
	case node:
		p.events.NodeProbesRefused(f.Error)
	default:
		p.events.ServiceProbesRefused(f.Service, f.Error)
	}
}

// drain makes all probes fail and goes on for a while, if that is wanted, or
// until ctx, which the caller keeps alive longer than the agent was told to
// live, is done.
func (p *probes) drain(ctx context.Context) {
	delay := p.cfg.Health.DrainDelay
	if delay == 0 && p.cfg.Health.Responder != "off" {
		return // somebody else will go on where this agent stops
	}
	p.state.Closing()
	if delay > 0 {
		p.log.Info("draining before the end", "delay", delay)
		pause(ctx, delay)
	}
}

var answersTotal = map[string]*prometheus.Desc{
	"healthz": prometheus.NewDesc("kubeproxy_proxy_healthz_total", "Answers to probes of /healthz, by status code.", []string{"code"}, nil),
	"livez":   prometheus.NewDesc("kubeproxy_proxy_livez_total", "Answers to probes of /livez, by status code.", []string{"code"}, nil),
}

// Describe implements prometheus.Collector.
func (p *probes) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range answersTotal {
		ch <- d
	}
}

// Collect implements prometheus.Collector. The counts are as of the responder's
// last word, and go on over restarts of the agent.
func (p *probes) Collect(ch chan<- prometheus.Metric) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.status.Answers {
		if d := answersTotal[a.Probe]; d != nil {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(a.Count), strconv.Itoa(a.Code))
		}
	}
}

// outlive returns a group whose context ends a drain later than ctx.
func (p *probes) outlive(ctx context.Context) (*errgroup.Group, context.Context) {
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	g, inner := errgroup.WithContext(inner)
	g.Go(func() error {
		defer stop()
		select {
		case <-ctx.Done():
			p.drain(inner)
		case <-inner.Done():
		}
		return nil
	})
	return g, inner
}
