package reconcile

import (
	"time"

	"github.com/ebb-lb/ebb/agent/plan"
	"github.com/ebb-lb/ebb/agent/service"
)

// Report is what one sync did.
type Report struct {
	// Begin, Planned and End are when changes were taken, the plan was ready,
	// and it was carried out. Without a plan, Planned is zero.
	Begin, Planned, End time.Time
	// Full: the sync was about everything.
	Full bool
	// Services are what it was about.
	Services []service.View
	// Failed are those of them that are not completely in the maps, and why.
	Failed map[service.Name]error
	// Writes are the writes that were done.
	Writes int
	// Incomplete is how many services are not completely served, of all.
	Incomplete int
	// Used are the entries taken of each map.
	Used plan.Capacities
	// Err is nil if everything is in the maps that can be.
	Err error
}
