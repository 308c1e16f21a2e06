package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	stdmaps "maps"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/ebb-lb/ebb/agent/config"
	"github.com/ebb-lb/ebb/agent/reconcile"
	"github.com/ebb-lb/ebb/loader"
)

const (
	collectInterval = 10 * time.Second
	verifyInterval  = 10 * time.Second
	closeBound      = time.Second
	listenAgain     = 5 * time.Second
)

// collect has flows that are over removed, and counts those that live, regularly.
func collect(ctx context.Context, k *kernel, live *liveCounts, o *observer, log *slog.Logger) error {
	for {
		if err := collectOnce(k, live, o, log); err != nil && ctx.Err() == nil {
			log.Error("collect flows", "error", err)
		}
		if !pause(ctx, collectInterval) {
			return nil
		}
	}
}

func collectOnce(k *kernel, live *liveCounts, o *observer, log *slog.Logger) error {
	c, err := k.collector.Collect()
	if err != nil {
		return err
	}
	o.collected(c)
	k.podLinks.Used(c.Pods > 0)
	log.Debug("collected flows", "flows", c.Flows, "half_open", c.HalfOpen, "closed", c.Closed, "deleted", c.Deleted)
	backends, err := k.set.Backends().All()
	if err != nil {
		return err
	}
	done, err := k.set.Stats().All(slices.Collect(stdmaps.Keys(backends)))
	if err != nil {
		return err
	}
	ports, err := k.set.ServicePorts().All()
	if err != nil {
		return err
	}
	live.set(done, backends, ports)
	return nil
}

// follow has the loop look at devices when they change, and now and then.
func follow(ctx context.Context, k *kernel, loop *reconcile.Loop, log *slog.Logger) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return loader.Watch(ctx, loop.DevicesChanged) })
	g.Go(func() error {
		for pause(ctx, verifyInterval) {
			err := k.verify()
			if err != nil {
				log.Warn("attachments", "error", err)
			}
			if err != nil || len(k.attacher.Unserved()) > 0 {
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
