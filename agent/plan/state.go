package plan

import (
	"fmt"
	"net/netip"

	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// Capacities is how many entries each map has room for.
type Capacities struct {
	Frontends, ServicePorts, Backends, Slots, SourceRanges uint32
}

// State is the content of the maps. Tables holds the tables the frontends
// point at; one that is missing counts as unreadable and is replaced.
type State struct {
	Frontends    map[maps.Frontend]maps.Service
	ServicePorts map[maps.ServicePortID]maps.ServicePort
	Backends     map[maps.BackendID]maps.Backend
	Tables       map[maps.Table][]maps.BackendID
	SourceRanges map[maps.SourceRange]struct{}
	// Addresses has the flags of services only (maps.ServiceAddress).
	Addresses map[netip.Addr]maps.AddressFlags
}

// Input is what a plan is made from.
type Input struct {
	// Services are the services that changed, as they are now; one without a
	// Service is deleted. If NodeName, Zone or NodePortAddrs changed since the
	// last plan, it must be all of them.
	Services []service.View
	// NodeName is the name of the node whose maps these are, Zone the zone it
	// is in; empty: none.
	NodeName, Zone string
	// NodePortAddrs are the addresses that accept node ports, never v4-mapped.
	NodePortAddrs []netip.Addr
	// NodePortsAnywhere: each node port has a frontend for any address of the node
	// as well, which only sockets of this node ask for.
	NodePortsAnywhere bool
	// PodCIDRs are the ranges by which pods are known; none: they are not.
	PodCIDRs []netip.Prefix
	// Live returns the number of live flows of an index, negative if that is
	// not known. Nil knows nothing: then no index is reused.
	Live func(maps.BackendID) int
	// Full means that Services are all there are: what belongs to others is
	// deleted. The first plan after New has to be full to find leftovers.
	Full bool
}

// ConflictError reports a frontend that a service wants and another has. The
// service gets it in the plan in which the owner gives it up. Owner and
// Claimant are the same where two ports of one service want it.
type ConflictError struct {
	Frontend        maps.Frontend
	Owner, Claimant service.Name
}

// Error names both services.
func (e *ConflictError) Error() string {
	if e.Owner == e.Claimant {
		return fmt.Sprintf("claim frontend %s for %s: another port of it has it", e.Frontend, e.Claimant)
	}
	return fmt.Sprintf("claim frontend %s for %s: it belongs to %s", e.Frontend, e.Claimant, e.Owner)
}
