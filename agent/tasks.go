package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/ebb-lb/ebb/agent/config"
	"github.com/ebb-lb/ebb/agent/flows"
	"github.com/ebb-lb/ebb/agent/reconcile"
	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
)

const (
	collectInterval = 10 * time.Second
	verifyInterval  = 10 * time.Second
	closeBound      = time.Second
	listenAgain     = 5 * time.Second
)

// collect looks through the flows regularly.
func collect(ctx context.Context, set *maps.Set, clock *loader.Clock, live *liveCounts, o *observer, log *slog.Logger) error {
	c := flows.Collector{
		Flows: set.Flows(), HalfOpen: set.HalfOpen(), Clock: clock, Timeouts: flows.DefaultTimeouts(),
	}
	for {
		if err := collectOnce(ctx, c, set, live, o, log); err != nil && ctx.Err() == nil {
			log.Error("collect flows", "error", err)
		}
		if !pause(ctx, collectInterval) {
			return nil
		}
	}
}

func collectOnce(ctx context.Context, c flows.Collector, set *maps.Set, live *liveCounts, o *observer, log *slog.Logger) error {
	backends, err := set.Backends().All()
	if err != nil {
		return err
	}
	c.Gone = gone(backends)
	r, err := c.Collect(ctx)
	if err != nil {
		return err
	}
	o.collected(r)
	log.Debug("collected flows", "entries", r.Entries, "half_open", r.HalfOpen, "deleted", r.Deleted)
	ports, err := set.ServicePorts().All()
	if err != nil {
		return err
	}
	live.set(r.Live, backends, ports)
	return nil
}

// gone tells who has left, as of backends. Who has an index they know a lower
// generation of is new.
func gone(backends map[maps.BackendID]maps.Backend) func(flows.Owner) bool {
	return func(o flows.Owner) bool {
		b, known := backends[o.ID]
		return known && (b.State == maps.Gone && b.Generation == o.Generation || b.Generation > o.Generation)
	}
}

// follow has the loop look at devices when they change, and now and then.
func follow(ctx context.Context, verify func() error, loop *reconcile.Loop, log *slog.Logger) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return loader.Watch(ctx, loop.DevicesChanged) })
	g.Go(func() error {
		for pause(ctx, verifyInterval) {
			if err := verify(); err != nil {
				log.Warn("attachments", "error", err)
				loop.DevicesChanged()
			}
		}
		return nil
	})
	return g.Wait()
}

// pause reports whether d passed before ctx was done.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// serve answers scrapes.
func serve(ctx context.Context, cfg config.Config, registry *prometheus.Registry, log *slog.Logger) error {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/proxyMode", serveProxyMode)
	for {
		err := listen(ctx, "metrics", cfg.MetricsAddr, mux, log)
		if err == nil {
			return nil
		}
		log.Error("metrics are not served", "error", err, "retry", listenAgain)
		if !pause(ctx, listenAgain) {
			return nil
		}
	}
}

// serveProxyMode is kube-proxy's: tools ask for it.
func serveProxyMode(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write([]byte("ebb")) // whoever asked may be gone
}

// listen serves h on addr until ctx is done; an empty addr serves nothing.
func listen(ctx context.Context, name, addr string, h http.Handler, log *slog.Logger) error {
	if addr == "" {
		return nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for %s: %w", name, err)
	}
	log.Info("listening", "for", name, "addr", l.Addr().String())
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() {
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeBound)
		defer cancel()
		_ = srv.Shutdown(bound)
	})
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", name, err)
	}
	return nil
}
