package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ebb-lb/ebb/agent/version"
	"github.com/ebb-lb/ebb/maps"
)

// RegisterBuild shows which build the agent is.
func RegisterBuild(registry prometheus.Registerer, b version.Build) {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "ebb_build_info", Help: "Always 1; the labels say which build the agent is.",
	}, []string{"version", "commit", "map_layout", "goversion"})
	g.WithLabelValues(b.Version, b.Commit, strconv.Itoa(maps.LayoutVersion), b.Go).Set(1)
	registry.MustRegister(g)
}
