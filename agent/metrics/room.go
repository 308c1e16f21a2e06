package metrics

import (
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// A map is tight from tightPercent of its capacity on, until it is below
// roomyPercent again: one that stays about there is not worth a line a sync.
const (
	tightPercent = 80
	roomyPercent = 75
)

// Limit is the capacity of a map, and the flag that sets it.
type Limit struct {
	Capacity uint32
	Flag     string
}

// Room shows how full each map is, and warns before one is full. It is safe for
// concurrent use.
type Room struct {
	log     *slog.Logger
	limits  map[string]Limit
	entries *prometheus.GaugeVec

	mu    sync.Mutex
	tight map[string]bool
}

// NewRoom returns a Room for maps with these limits, whose metrics are in reg.
func NewRoom(reg prometheus.Registerer, limits map[string]Limit, log *slog.Logger) *Room {
	auto := promauto.With(reg)
	capacity := auto.NewGaugeVec(prometheus.GaugeOpts{Name: "ebb_map_capacity", Help: "Entries each map has room for."}, []string{"map"})
	for name, l := range limits {
		capacity.WithLabelValues(name).Set(float64(l.Capacity))
	}
	return &Room{
		log: log, limits: limits, tight: make(map[string]bool),
		entries: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ebb_map_entries", Help: "Entries in each map; those of flows as of their last collection.",
		}, []string{"map"}),
	}
}

// Note takes over how many entries of a map are taken.
func (r *Room) Note(name string, entries uint32) {
	r.entries.WithLabelValues(name).Set(float64(entries))
	limit := r.limits[name]
	percent := uint64(entries) * 100 / max(1, uint64(limit.Capacity))
	r.mu.Lock()
	defer r.mu.Unlock()
	switch was := r.tight[name]; {
	case !was && percent >= tightPercent:
		r.tight[name] = true
		r.log.Warn("map is getting full", "map", name, "entries", entries, "capacity", limit.Capacity, "raise", limit.Flag)
	case was && percent < roomyPercent:
		r.tight[name] = false
		r.log.Info("map has room again", "map", name, "entries", entries, "capacity", limit.Capacity)
	}
}
