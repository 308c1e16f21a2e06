package metrics

import "github.com/prometheus/client_golang/prometheus"

// uplinks shows of each uplink whether it is served.
type uplinks struct {
	served func() map[string]bool
	desc   *prometheus.Desc
}

// RegisterUplinks shows in reg of each uplink, by name, whether it has all programs it
// should have. served must be safe for concurrent use.
func RegisterUplinks(reg prometheus.Registerer, served func() map[string]bool) {
	reg.MustRegister(uplinks{served, prometheus.NewDesc("ebb_uplink_served",
		"1: the device has the programs that serve what comes in by it. 0: it does not exist, or lacks some; the log and /healthz say why.",
		[]string{"device"}, nil)})
}

// Describe implements [prometheus.Collector].
func (u uplinks) Describe(ch chan<- *prometheus.Desc) { ch <- u.desc }

// Collect implements [prometheus.Collector].
func (u uplinks) Collect(ch chan<- prometheus.Metric) {
	for name, served := range u.served() {
		value := 0.0
		if served {
			value = 1
		}
		ch <- prometheus.MustNewConstMetric(u.desc, prometheus.GaugeValue, value, name)
	}
}
