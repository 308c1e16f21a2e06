package agent

import (
	"sync"

	"github.com/ebb-lb/ebb/maps"
)

// liveCounts are the live flows of each backend as of the last collection.
type liveCounts struct {
	mu     sync.Mutex
	counts map[maps.BackendID]int // nil: none yet
}

// of returns the live flows of an index whatever the generation, negative if
// they were not counted yet.
func (l *liveCounts) of(id maps.BackendID) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts == nil {
		return -1
	}
	return l.counts[id]
}

func (l *liveCounts) set(counts map[maps.BackendID]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts = counts
}
