package pod

import (
	"context"
	"sync"
	"time"
)

// activity knows what is open and when something was last asked for.
type activity struct {
	mu   sync.Mutex
	open int
	last time.Time
}

func newActivity() *activity { return &activity{last: time.Now()} }

func (a *activity) begin() { a.change(1) }
func (a *activity) end()   { a.change(-1) }
func (a *activity) touch() { a.change(0) }

func (a *activity) change(by int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open += by
	a.last = time.Now()
}

// idleIn returns how long it takes until nothing has been open or asked for
// during quiet, if nothing happens until then. 0 means it is idle now.
func (a *activity) idleIn(quiet time.Duration) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open > 0 {
		return quiet
	}
	return max(0, quiet-time.Since(a.last))
}

// waitIdle returns after a period of quiet that begins now or later, when
// bound has passed, or when ctx ends.
func (a *activity) waitIdle(ctx context.Context, quiet, bound time.Duration) {
	a.touch()
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for wait := a.idleIn(quiet); wait > 0; wait = a.idleIn(quiet) {
		// While something is open, look often enough to notice its end soon.
		timer := time.NewTimer(min(wait, 50*time.Millisecond))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}
