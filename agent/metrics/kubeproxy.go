package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/ebb-lb/ebb/agent/reconcile"
	"github.com/ebb-lb/ebb/agent/service"
)

// families are the values of the label ip_family. A kube-proxy has a proxier for
// each; ebb syncs both in one, so the samples of both are the same where they
// are about syncs.
func families() []string { return []string{"IPv4", "IPv6"} }

// kubeProxy are metrics of kube-proxy that mean the same here, with its names,
// labels and buckets (kube-proxy's pkg/proxy/metrics): dashboards made for one
// work for the other.
type kubeProxy struct {
	duration, full, partial, programming *prometheus.HistogramVec
	last                                 *prometheus.GaugeVec
	noLocal                              *prometheus.GaugeVec
	locals                               locals
}

func newKubeProxy(reg prometheus.Registerer, nodeName string, counts func() service.Counts) *kubeProxy {
	auto := promauto.With(reg)
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubeproxy_" + name, Help: help, Buckets: buckets,
		}, []string{"ip_family"})
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return auto.NewGaugeVec(prometheus.GaugeOpts{Name: "kubeproxy_" + name, Help: help}, labels)
	}
	syncs := prometheus.ExponentialBuckets(0.001, 2, 15)
	k := &kubeProxy{
		duration:    histogram("sync_proxy_rules_duration_seconds", "Duration of a sync.", syncs),
		full:        histogram("sync_full_proxy_rules_duration_seconds", "Duration of a sync of everything.", syncs),
		partial:     histogram("sync_partial_proxy_rules_duration_seconds", "Duration of a sync of what changed.", syncs),
		programming: histogram("network_programming_duration_seconds", "From a change of endpoints in the cluster to its being in the maps.", programmingBuckets()),
		last:        gauge("sync_proxy_rules_last_timestamp_seconds", "When a sync last succeeded.", "ip_family"),
		noLocal: gauge("sync_proxy_rules_no_local_endpoints_total",
			"Service ports with a Local traffic policy and endpoints, but none on this node.", "ip_family", "traffic_policy"),
		locals: newLocals(nodeName),
	}
	registerCounts(auto, counts)
	k.showLocals()
	return k
}

func programmingBuckets() []float64 {
	return slices.Concat(
		prometheus.LinearBuckets(0.25, 0.25, 2), prometheus.LinearBuckets(1, 1, 59),
		prometheus.LinearBuckets(60, 5, 12), prometheus.LinearBuckets(120, 30, 7),
	)
}

// registerCounts shows what the store has seen.
func registerCounts(auto promauto.Factory, counts func() service.Counts) {
	gauge := func(name, help string, value func(service.Counts) float64) {
		opts := prometheus.GaugeOpts{Name: "kubeproxy_sync_proxy_rules_" + name, Help: help}
		auto.NewGaugeFunc(opts, func() float64 { return value(counts()) })
	}
	counter := func(name, help string, value func(service.Counts) float64) {
		opts := prometheus.CounterOpts{Name: "kubeproxy_sync_proxy_rules_" + name, Help: help}
		auto.NewCounterFunc(opts, func() float64 { return value(counts()) })
	}
	gauge("endpoint_changes_pending", "Changes of EndpointSlices no sync has taken yet.",
		func(c service.Counts) float64 { return float64(c.PendingSliceChanges) })
	gauge("service_changes_pending", "Changes of Services no sync has taken yet.",
		func(c service.Counts) float64 { return float64(c.PendingServiceChanges) })
	counter("endpoint_changes_total", "Changes of EndpointSlices.",
		func(c service.Counts) float64 { return float64(c.SliceChanges) })
	counter("service_changes_total", "Changes of Services.",
		func(c service.Counts) float64 { return float64(c.ServiceChanges) })
	for _, family := range families() {
		opts := prometheus.GaugeOpts{
			Name: "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", Help: "When a sync was last asked for.",
			ConstLabels: prometheus.Labels{"ip_family": family},
		}
		auto.NewGaugeFunc(opts, func() float64 { return seconds(counts().Changed) })
	}
}

func (k *kubeProxy) observe(r reconcile.Report) {
	k.locals.update(r)
	k.showLocals()
	took, kind := r.End.Sub(r.Begin).Seconds(), k.partial
	if r.Full {
		kind = k.full
	}
	for _, family := range families() {
		k.duration.WithLabelValues(family).Observe(took)
		kind.WithLabelValues(family).Observe(took)
		if r.Err == nil {
			k.last.WithLabelValues(family).Set(seconds(r.End))
		}
		for _, v := range r.Services {
			if !v.Triggered.IsZero() && synced(r, v) {
				k.programming.WithLabelValues(family).Observe(r.End.Sub(v.Triggered).Seconds())
			}
		}
	}
}

func (k *kubeProxy) showLocals() {
	for _, family := range families() {
		internal, external := k.locals.count(family == "IPv4")
		k.noLocal.WithLabelValues(family, "internal").Set(float64(internal))
		k.noLocal.WithLabelValues(family, "external").Set(float64(external))
	}
}
