package endpoints

import (
	"fmt"
	"slices"

	"github.com/ebb-lb/ebb/agent/service"
)

// Class is a kind of frontend together with where its client is: what the
// policies tell apart.
type Class uint8

// The classes of frontends and clients.
const (
	// Internal is a ClusterIP, whoever dials it.
	Internal Class = iota
	// External is a node port, load balancer or external address dialled from
	// outside: whatever arrives at an uplink, also from pods of other nodes.
	External
	// Inside is a node port, load balancer or external address dialled by a
	// pod of this node or by the node itself: as if the connection had gone out to the
	// load balancer and come back, by whatever node.
	Inside
)

// Verdict is what becomes of a new connection.
type Verdict uint8

// The verdicts.
const (
	// Forward: there are candidates.
	Forward Verdict = iota
	// Drop: the policy leaves nobody here, elsewhere there is somebody. The
	// client should try again: it may get another node.
	Drop
	// Reject: nobody serves, anywhere.
	Reject
)

// String is the verdict in messages.
func (v Verdict) String() string {
	switch v {
	case Forward:
		return "forward"
	case Drop:
		return "drop"
	case Reject:
		return "reject"
	}
	return fmt.Sprintf("verdict %d", uint8(v))
}

// Candidates returns who takes new connections to frontends of a family. External
// and Inside have a meaning only where there are such frontends.
func (c Choice) Candidates(class Class, v4 bool) []service.Endpoint {
	set := c.Cluster
	if class == Internal && c.InternalLocal || class == External && c.ExternalLocal {
		set = c.Local
	}
	return keep(set, func(e service.Endpoint) bool { return isFamily(e, v4) })
}

// Verdict returns what becomes of new connections to frontends of a family. Flows
// that exist are not its business: they keep their backend.
func (c Choice) Verdict(class Class, v4 bool) Verdict {
	switch {
	case len(c.Candidates(class, v4)) > 0:
		return Forward
	case c.HasAny(v4):
		return Drop
	}
	return Reject
}

// HasAny reports whether any endpoint of a family could take a connection, on
// this node or another.
func (c Choice) HasAny(v4 bool) bool {
	return slices.ContainsFunc(c.All, func(e service.Endpoint) bool {
		return isFamily(e, v4) && (e.Ready || e.Serving && e.Terminating)
	})
}
