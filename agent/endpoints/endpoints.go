// Package endpoints decides which endpoints of a service port take new
// connections on this node, and what becomes of a connection that none can
// take. It knows traffic policies, topology hints and the conditions of
// endpoints. It deliberately knows no map, no identifier and no clock.
package endpoints

import (
	"slices"

	"github.com/ebb-lb/ebb/agent/service"
)

// Inputs are what a choice depends on.
type Inputs struct {
	Service   *service.Service
	Port      service.Port // one of Service.Ports
	Endpoints []service.Endpoint
	// NodeName and Zone are those of this node. Without a zone no endpoint is
	// hinted for it.
	NodeName, Zone string
}

// Choice is what Choose decided. The slices share no memory with the endpoints
// given. Of the two sets, the IPv4 endpoints come first; within a family the
// order is that of the endpoints given.
type Choice struct {
	// Cluster are the candidates of the policy Cluster; empty when nothing
	// leads to the port under that policy.
	Cluster []service.Endpoint
	// Local are the candidates of the policy Local: endpoints of this node
	// only; empty when no policy of the service is Local.
	Local []service.Endpoint
	// All are all endpoints given, whatever their conditions: what is in
	// here but in no set still exists and keeps its connections.
	All []service.Endpoint
	// InternalLocal and ExternalLocal say which policies in force are Local.
	InternalLocal, ExternalLocal bool
}

// Choose decides which endpoints take new connections.
//
// Ready endpoints are candidates; where there is none, those that terminate
// but still serve stand in. The two sets are decided independently of each
// other, and per address family: a frontend only ever leads to endpoints of
// its own family, so one family must not keep the other from its stand-ins or
// decide whether its hints are complete. Hints narrow the cluster set only.
func Choose(in Inputs) Choice {
	external := in.Service.ExternallyAccessible(in.Port)
	c := Choice{
		All:           slices.Clone(in.Endpoints),
		InternalLocal: in.Service.InternalPolicy == service.Local,
		ExternalLocal: in.Service.ExternalPolicy == service.Local && external,
	}
	for _, v4 := range []bool{true, false} {
		family := keep(in.Endpoints, func(e service.Endpoint) bool { return isFamily(e, v4) })
		// Pods and the node itself reach external frontends by the cluster
		// set also where the external policy is Local.
		if !c.InternalLocal || external {
			c.Cluster = append(c.Cluster, candidates(family, in.hinted)...)
		}
		if c.InternalLocal || c.ExternalLocal {
			local := keep(family, func(e service.Endpoint) bool { return IsLocal(e, in.NodeName) })
			c.Local = append(c.Local, candidates(local, everyOne)...)
		}
	}
	return c
}

// Leaves reports whether the datagrams that e gets go to others from now on: it
// does not serve, and another endpoint of its family does. One that is ready
// all the same (publishNotReadyAddresses) keeps them, it may get new ones too.
func (c Choice) Leaves(e service.Endpoint) bool {
	return !e.Serving && !e.Ready && slices.ContainsFunc(c.All, func(o service.Endpoint) bool {
		return o.Serving && isFamily(o, e.Addr.Addr().Is4())
	})
}

// IsLocal reports whether e runs on the node nodeName. An endpoint whose node
// is unknown is remote.
func IsLocal(e service.Endpoint, nodeName string) bool {
	return e.NodeName != "" && e.NodeName == nodeName
}

// candidates returns the ready endpoints that narrow leaves, or the serving
// terminating ones if none is ready; for those topology does not count.
func candidates(eps []service.Endpoint, narrow func(ready []service.Endpoint) []service.Endpoint) []service.Endpoint {
	ready := keep(eps, func(e service.Endpoint) bool { return e.Ready })
	if len(ready) == 0 {
		return keep(eps, func(e service.Endpoint) bool { return e.Serving && e.Terminating })
	}
	return narrow(ready)
}

func everyOne(ready []service.Endpoint) []service.Endpoint { return ready }

// hinted returns the ready endpoints meant for this node or, failing that, for
// its zone; if there are none, all.
func (in Inputs) hinted(ready []service.Endpoint) []service.Endpoint {
	nodes := func(e service.Endpoint) service.NameSet { return e.NodeHints }
	zones := func(e service.Endpoint) service.NameSet { return e.ZoneHints }
	if mine := hintedFor(ready, nodes, in.NodeName); len(mine) > 0 {
		return mine
	}
	if mine := hintedFor(ready, zones, in.Zone); len(mine) > 0 {
		return mine
	}
	return ready
}

// hintedFor returns the endpoints with a hint for name. Hints count once every
// endpoint has one: before that they are still being handed out.
func hintedFor(eps []service.Endpoint, hints func(service.Endpoint) service.NameSet, name string) []service.Endpoint {
	if slices.ContainsFunc(eps, func(e service.Endpoint) bool { return hints(e) == "" }) {
		return nil
	}
	return keep(eps, func(e service.Endpoint) bool { return hints(e).Has(name) })
}

func isFamily(e service.Endpoint, v4 bool) bool { return e.Addr.Addr().Is4() == v4 }

// keep returns the elements of eps that ok accepts, in a new slice.
func keep(eps []service.Endpoint, ok func(service.Endpoint) bool) []service.Endpoint {
	var kept []service.Endpoint
	for _, e := range eps {
		if ok(e) {
			kept = append(kept, e)
		}
	}
	return kept
}
