package metrics

import "github.com/prometheus/client_golang/prometheus"

// RegisterPodLinks shows in reg how many pods' links there are; status says how
// many are served, and how many could not be.
func RegisterPodLinks(reg prometheus.Registerer, status func() (attached, failing int)) {
	gauge := func(state string, value func() int) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ebb_pod_links", Help: "Pods' links that have the programs, and that should but could not get them.",
			ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 { return float64(value()) }))
	}
	gauge("attached", func() int { attached, _ := status(); return attached })
	gauge("failing", func() int { _, failing := status(); return failing })
}
