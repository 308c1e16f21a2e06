package agent

import (
	"context"
	"log/slog"
	"time"

	"github.com/ebb-lb/ebb/agent/config"
	"github.com/ebb-lb/ebb/agent/conntrack"
	"github.com/ebb-lb/ebb/agent/health"
)

// conntrackInterval is how often netfilter's settings are looked at: its module may be
// loaded later, and others may set them anew.
const conntrackInterval = 10 * time.Second

// conntrackKeeper keeps netfilter from forgetting connections too early.
type conntrackKeeper struct {
	want   conntrack.Limits
	kept   conntrack.Kept
	health *health.State
	log    *slog.Logger
}

func newConntrackKeeper(cfg config.Config, state *health.State, log *slog.Logger) *conntrackKeeper {
	return &conntrackKeeper{want: cfg.Conntrack, kept: conntrack.KeptIn(cfg.Health.StateDir), health: state, log: log}
}

// run looks at the settings until ctx is done.
func (k *conntrackKeeper) run(ctx context.Context) error {
	for {
		k.look()
		if !pause(ctx, conntrackInterval) {
			return nil
		}
	}
}

func (k *conntrackKeeper) look() {
	changes, err := k.kept.Raise(k.want)
	for _, c := range changes {
		k.log.Info("conntrack setting changed", "name", c.Name, "before", c.Before, "after", c.After)
	}
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	if k.health.Warn("conntrack", problem) && err != nil {
		k.log.Warn("conntrack settings are not as wanted: netfilter may forget connections that ebb serves; set them on the node, or 0 to leave them", "err", err)
	}
}
