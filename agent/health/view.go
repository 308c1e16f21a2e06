package health

import (
	"net/netip"
	"time"

	"github.com/ebb-lb/ebb/agent/endpoints"
	"github.com/ebb-lb/ebb/agent/service"
)

// Family is an address family by Kubernetes' name.
type Family string

// The address families.
const (
	IPv4 Family = "IPv4"
	IPv6 Family = "IPv6"
)

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}

// any returns the address that stands for all of the family.
func (f Family) any() netip.Addr {
	if f == IPv4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// View is all that answers are made of, as of one time. It can be sent to
// another process.
type View struct {
	Node Node `json:"node"`
	// Unsynced: the agent has not synced yet, so that Listen and Services are not
	// known; what was said of them before stands.
	Unsynced bool `json:"unsynced,omitempty"`
	// Listen are the addresses health check node ports are on.
	Listen   []netip.Addr `json:"listen,omitempty"`
	Services []Service    `json:"services,omitempty"` // sorted by name
}

// Service returns the service of a name, and whether there is one.
func (v View) Service(name service.Name) (Service, bool) {
	for _, s := range v.Services {
		if s.Name == name {
			return s, true
		}
	}
	return Service{}, false
}

// Node is the health of the agent and of the node it is on.
type Node struct {
	Synced time.Time `json:"synced"` // end of the last complete sync
	// Complete is when a sync last left nothing to do, also one of an agent before
	// this one; zero if none is known.
	Complete time.Time `json:"complete,omitzero"`
	Healthy  bool      `json:"healthy"`
	Reason   string    `json:"reason,omitempty"` // why it is not healthy
	// Eligible: balancers may send new connections here; else Drained says why not.
	Eligible bool   `json:"eligible"`
	Drained  string `json:"drained,omitempty"`
	// DrainServices: a drained node also fails health check node ports.
	DrainServices bool     `json:"drainServices,omitempty"`
	Families      []Family `json:"families"`
	// Unserved are uplinks that are not completely served: name, colon, reason.
	Unserved []string `json:"unserved,omitempty"`
	// Warnings are what is wrong without failing a probe: about what, colon, what.
	Warnings []string `json:"warnings,omitempty"`
	// Connections are the live ones that go through the node; nil: not known.
	Connections *int `json:"connections,omitempty"`
}

// Unhealthy returns n, unhealthy for a reason.
func (n Node) Unhealthy(reason string) Node {
	n.Healthy, n.Reason = false, reason
	return n
}

// Service is what balancers are told of a service with a health check node port.
type Service struct {
	Name        service.Name                    `json:"name"`
	Port        uint16                          `json:"port"`
	Endpoints   map[Family]endpoints.LocalCount `json:"endpoints"`
	Connections *int                            `json:"connections,omitempty"`
}
