package agent

import (
	"sync"

	"github.com/ebb-lb/ebb/agent/flows"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// liveCounts are the live flows as of the last collection.
type liveCounts struct {
	mu       sync.Mutex
	counts   map[maps.BackendID]int // nil: none yet
	services map[service.Name]int
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

// byService returns the live flows of each service, nil if they were not
// counted yet. The caller must not change it.
func (l *liveCounts) byService() map[service.Name]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.services
}

// set takes over what a collection has found. Flows of a backend that has no
// name any more count for no service.
func (l *liveCounts) set(live map[flows.Owner]int, backends map[maps.BackendID]maps.Backend, ports map[maps.ServicePortID]maps.ServicePort) {
	counts := make(map[maps.BackendID]int, len(live))
	services := make(map[service.Name]int)
	for owner, n := range live {
		counts[owner.ID] += n
		b, known := backends[owner.ID]
		if port, named := ports[b.ServicePort]; known && named && b.Generation == owner.Generation {
			services[service.Name{Namespace: port.Namespace, Name: port.Service}] += n
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts, l.services = counts, services
}
