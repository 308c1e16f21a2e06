package agent

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/ebb-lb/ebb/agent/config"
	"github.com/ebb-lb/ebb/agent/metrics"
	"github.com/ebb-lb/ebb/agent/reconcile"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/agent/version"
	"github.com/ebb-lb/ebb/agent/watch"
	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
)

// observer hands what happens to the metrics, and keeps the time of the last
// complete sync with the pins.
type observer struct {
	registry *prometheus.Registry
	syncs    *metrics.Syncs
	room     *metrics.Room
	bpffs    string
	log      *slog.Logger
	last     atomic.Pointer[time.Time] // end of the last complete sync
}

func newObserver(cfg config.Config, set *maps.Set, store *service.Store, contact *watch.Contact, log *slog.Logger) *observer {
	o := &observer{registry: prometheus.NewRegistry(), bpffs: cfg.BPFFS, log: log}
	o.last.Store(lastComplete(cfg.BPFFS, log))
	o.registry.MustRegister(metrics.NewCollector(metrics.SourceOf(set)), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics.RegisterBuild(o.registry, version.Get())
	o.room = metrics.NewRoom(o.registry, limits(set.Sizes()), log)
	o.syncs = metrics.NewSyncs(o.registry, metrics.Facts{
		NodeName: cfg.NodeName, Counts: store.Counts, Contact: contact.Last, Complete: o.complete, Now: time.Now,
	})
	return o
}

// lastComplete returns when what is pinned was last in step, and says so: until
// the source has been heard, that is what is served.
func lastComplete(bpffs string, log *slog.Logger) *time.Time {
	t, err := loader.LastComplete(bpffs)
	switch {
	case err != nil:
		log.Warn("age of what is pinned", "error", err)
	case !t.IsZero():
		log.Info("serving what is pinned until the source is heard", "complete", t, "age", time.Since(t).Round(time.Second))
	}
	return &t
}

func limits(s maps.Sizes) map[string]metrics.Limit {
	return map[string]metrics.Limit{
		"frontends":     {Capacity: s.Frontends, Flag: "--max-frontends"},
		"service_ports": {Capacity: s.ServicePorts, Flag: "--max-frontends"},
		"backends":      {Capacity: s.Backends, Flag: "--max-backends"},
		"slots":         {Capacity: s.Slots, Flag: "--max-slots"},
		"source_ranges": {Capacity: s.SourceRanges, Flag: "--max-source-ranges"},
		"flows":         {Capacity: s.Flows, Flag: "--max-flows"},
		"half_open":     {Capacity: s.HalfOpen, Flag: "--max-half-open"},
		"closed":        {Capacity: s.Closed, Flag: "--max-closed"},
	}
}

// complete returns when a sync last left nothing to do; zero if none is known.
func (o *observer) complete() time.Time { return *o.last.Load() }

// synced takes over what a sync did.
func (o *observer) synced(r reconcile.Report) {
	o.syncs.Observe(r)
	o.room.Note("frontends", r.Used.Frontends)
	o.room.Note("service_ports", r.Used.ServicePorts)
	o.room.Note("backends", r.Used.Backends)
	o.room.Note("slots", r.Used.Slots)
	o.room.Note("source_ranges", r.Used.SourceRanges)
	if r.Err != nil {
		return
	}
	o.last.Store(&r.End)
	if err := loader.MarkComplete(o.bpffs, r.End); err != nil {
		o.log.Warn("sync", "error", err)
	}
}

// collected takes over what a collection of flows found.
func (o *observer) collected(c loader.Collection) {
	o.room.Note("flows", c.Flows)
	o.room.Note("half_open", c.HalfOpen)
	o.room.Note("closed", c.Closed)
}
