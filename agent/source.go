package agent

import (
	"context"
	"log/slog"

	"golang.org/x/sync/errgroup"

	"github.com/ebb-lb/ebb/agent/config"
	"github.com/ebb-lb/ebb/agent/drain"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/agent/watch"
)

// source fills the store, and tells people where there is somebody to tell.
type source struct {
	filler interface{ Run(context.Context) error }
	events *watch.Events // nil: there is nowhere to tell
}

func newSource(cfg config.Config, store *service.Store, contact *watch.Contact, log *slog.Logger) (source, error) {
	opts := watch.Options{
		NodeName: cfg.NodeName, ServiceProxyName: cfg.ServiceProxyName, Contact: contact,
		NodeLabels:      drain.Keys(cfg.Health.DrainSignals, drain.Label),
		NodeAnnotations: drain.Keys(cfg.Health.DrainSignals, drain.Annotation),
	}
	if cfg.Source.Dir != "" {
		return source{filler: watch.NewDir(cfg.Source.Dir, opts, store, log)}, nil
	}
	client, err := watch.Connect(watch.API{Kubeconfig: cfg.Kubeconfig, Servers: cfg.KubeAPI}, contact)
	if err != nil {
		return source{}, err
	}
	return source{
		filler: watch.NewKubernetes(client, opts, store, log),
		events: watch.NewEvents(client, cfg.NodeName),
	}, nil
}

func (s source) run(ctx context.Context, log *slog.Logger) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.filler.Run(ctx) })
	if s.events != nil {
		g.Go(func() error { return s.events.Run(ctx, log) })
	}
	return g.Wait()
}

// warner returns who tells about probes, nil if nobody does.
func (s source) warner() warner {
	if s.events == nil {
		return nil
	}
	return s.events
}
