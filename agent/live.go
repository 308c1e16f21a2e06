package agent

import (
	"sync"

	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// liveCounts are what lives as of the last look at what the datapath counts.
type liveCounts struct {
	mu       sync.Mutex
	counts   map[maps.BackendID]int // flows; nil: none yet
	sockets  map[maps.BackendID]int // connected sockets of this node
	services map[service.Name]int   // flows
}

// of returns the live flows and sockets of an index whatever the generation,
// negative if they were not counted yet.
func (l *liveCounts) of(id maps.BackendID) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts == nil {
		return -1
	}
	return l.counts[id] + l.sockets[id]
}

// byService returns the live flows of each service, nil if they were not
// counted yet: what this node carries for others. Sockets end with their
// processes, wherever they are connected to. The caller must not change it.
func (l *liveCounts) byService() map[service.Name]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.services
}

// set takes over what backends have done. Flows of a backend that has no name
// any more count for no service. An index is given to another backend only when
// it has no flows left, so all are its present owner's.
func (l *liveCounts) set(done map[maps.BackendID]maps.BackendCounts, backends map[maps.BackendID]maps.Backend, ports map[maps.ServicePortID]maps.ServicePort) {
	counts := make(map[maps.BackendID]int, len(done))
	sockets := make(map[maps.BackendID]int, len(done))
	services := make(map[service.Name]int)
	for id, d := range done {
		live := d.LiveFlows()
		counts[id] = live
		sockets[id] = d.LiveSockets()
		if port, named := ports[backends[id].ServicePort]; named {
			services[service.Name{Namespace: port.Namespace, Name: port.Service}] += live
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts, l.sockets, l.services = counts, sockets, services
}
