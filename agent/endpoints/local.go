package endpoints

import (
	"net/netip"

	"github.com/ebb-lb/ebb/agent/service"
)

// LocalCount is how many endpoints of a service this node has, by distinct
// addresses over all ports.
type LocalCount struct {
	// Ready is what a health check node port reports.
	Ready int
	// Draining are those that terminate and are not ready any more, whether
	// they still serve or not.
	Draining int
}

// CountLocal counts the endpoints of a service on the node nodeName in one
// address family. An address that is ready on any port is ready.
func CountLocal(ports map[service.PortKey][]service.Endpoint, nodeName string, v4 bool) LocalCount {
	ready, draining := map[netip.Addr]bool{}, map[netip.Addr]bool{}
	for _, eps := range ports {
		for _, e := range eps {
			switch {
			case !isFamily(e, v4) || !IsLocal(e, nodeName):
			case e.Ready:
				ready[e.Addr.Addr()] = true
			case e.Terminating:
				draining[e.Addr.Addr()] = true
			}
		}
	}
	count := LocalCount{Ready: len(ready)}
	for a := range draining {
		if !ready[a] {
			count.Draining++
		}
	}
	return count
}
