package metrics

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/ebb-lb/ebb/agent/reconcile"
	"github.com/ebb-lb/ebb/agent/service"
)

// Facts is what Syncs asks for when it is scraped. All are needed.
type Facts struct {
	NodeName string
	// Counts is what the store has seen.
	Counts func() service.Counts
	// Contact is when the source was last known to be in touch, zero if never.
	Contact func() time.Time
	// Complete is when a sync last left nothing to do, also one of an agent
	// before this one; zero if none is known.
	Complete func() time.Time
	// Now is the clock, usually time.Now.
	Now func() time.Time
}

// Syncs shows what the loop does: how long it takes, what waits, what fails. It is
// safe for concurrent use, except that syncs are observed one after the other.
type Syncs struct {
	kubeProxy *kubeProxy

	plan, apply, latency prometheus.Histogram
	failures             prometheus.Counter
	incomplete           prometheus.Gauge
	attached             atomic.Int32
}

// NewSyncs returns Syncs whose metrics are in reg.
func NewSyncs(reg prometheus.Registerer, f Facts) *Syncs {
	auto := promauto.With(reg)
	histogram := func(name, help string) prometheus.Histogram {
		return auto.NewHistogram(prometheus.HistogramOpts{
			Name: "ebb_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(0.0001, 2, 20),
		})
	}
	gauge := func(name, help string, value func() float64) {
		auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "ebb_" + name, Help: help}, value)
	}
	s := &Syncs{
		kubeProxy: newKubeProxy(reg, f.NodeName, f.Counts),
		plan:      histogram("plan_duration_seconds", "From taking changes to the list of writes."),
		apply:     histogram("apply_duration_seconds", "Time the writes of a sync took."),
		latency:   histogram("change_latency_seconds", "From a change reaching the agent to its being in the maps, per service."),
		failures:  auto.NewCounter(prometheus.CounterOpts{Name: "ebb_sync_failures_total", Help: "Syncs after which something has to be tried again."}),
		incomplete: auto.NewGauge(prometheus.GaugeOpts{
			Name: "ebb_services_incomplete", Help: "Services that are not completely served, for lack of room, a conflict, or a refused write.",
		}),
	}
	gauge("services_dirty", "Services that changed and are not synced yet, or have to be tried again.",
		func() float64 { return float64(f.Counts().Dirty) })
	gauge("source_age_seconds", "Time since the source of Services was known to be in touch.",
		func() float64 { return age(f.Now(), f.Contact()) })
	gauge("complete_sync_timestamp_seconds", "When a sync last left nothing to do, also one of an earlier agent; 0: unknown.",
		func() float64 { return seconds(f.Complete()) })
	gauge("attached", "1: the programs are on all uplinks as they should be.", func() float64 { return float64(s.attached.Load()) })
	return s
}

// Observe takes over what a sync did.
func (s *Syncs) Observe(r reconcile.Report) {
	s.kubeProxy.observe(r)
	if !r.Planned.IsZero() {
		s.plan.Observe(r.Planned.Sub(r.Begin).Seconds())
		s.apply.Observe(r.End.Sub(r.Planned).Seconds())
	}
	for _, v := range r.Services {
		if !v.Received.IsZero() && synced(r, v) {
			s.latency.Observe(r.End.Sub(v.Received).Seconds())
		}
	}
	s.incomplete.Set(float64(r.Incomplete))
	if r.Err != nil {
		s.failures.Inc()
	}
}

// Attached notes the last verification of the attachments; nil: all are there.
func (s *Syncs) Attached(err error) {
	ok := int32(0)
	if err == nil {
		ok = 1
	}
	s.attached.Store(ok)
}

// synced reports whether what changed of v is in the maps since r.
func synced(r reconcile.Report, v service.View) bool {
	return !r.Planned.IsZero() && r.Failed[v.Name] == nil
}

// seconds is t as Prometheus has it.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / float64(time.Second)
}

// age is endless for what has never been.
func age(now, since time.Time) float64 {
	if since.IsZero() {
		return math.Inf(1)
	}
	return now.Sub(since).Seconds()
}
