// Package endpoints decides which endpoints of a service port take new
// connections on this node. It knows traffic policies and the conditions of
// endpoints. It deliberately knows no map, no identifier and no clock, and
// does not evaluate topology hints.
package endpoints

import "github.com/ebb-lb/ebb/agent/service"

// Choice is what Choose decided. The slices keep the order of the endpoints
// given and share no memory with them.
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
}

// Choose decides on the endpoints eps of port p of svc for the node nodeName.
//
// Ready endpoints are candidates; where there is none, those that terminate
// but still serve stand in. The two sets are decided independently of each
// other, and per address family: a frontend only ever leads to endpoints of
// its own family, so one family must not keep the other from its stand-ins.
func Choose(svc *service.Service, p service.Port, eps []service.Endpoint, nodeName string) Choice {
	external := svc.ExternallyAccessible(p)
	internalLocal := svc.InternalPolicy == service.Local
	externalLocal := svc.ExternalPolicy == service.Local && external

	choice := Choice{All: keep(eps, func(service.Endpoint) bool { return true })}
	// Pods and the node itself reach external frontends by the cluster set
	// also where the external policy is Local.
	if !internalLocal || external {
		choice.Cluster = candidates(eps)
	}
	if internalLocal || externalLocal {
		choice.Local = candidates(keep(eps, func(e service.Endpoint) bool { return IsLocal(e, nodeName) }))
	}
	return choice
}

// IsLocal reports whether e runs on the node nodeName. An endpoint whose node
// is unknown is remote.
func IsLocal(e service.Endpoint, nodeName string) bool {
	return e.NodeName != "" && e.NodeName == nodeName
}

// candidates returns, of each family, the ready endpoints, or the serving
// terminating ones if none is ready.
func candidates(eps []service.Endpoint) []service.Endpoint {
	var ready4, ready6 bool
	for _, e := range eps {
		ready4 = ready4 || e.Ready && is4(e)
		ready6 = ready6 || e.Ready && !is4(e)
	}
	return keep(eps, func(e service.Endpoint) bool {
		if is4(e) && ready4 || !is4(e) && ready6 {
			return e.Ready
		}
		return e.Serving && e.Terminating
	})
}

func is4(e service.Endpoint) bool { return e.Addr.Addr().Is4() }

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
