package plan

import (
	"net/netip"
	"slices"

	"github.com/ebb-lb/ebb/agent/endpoints"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// wanted is what a service port should have in the maps, before numbers.
type wanted struct {
	name          maps.ServicePort
	choice        endpoints.Choice
	internalLocal bool
	externalLocal bool
	// internal are the ClusterIPs, external everything else.
	internal, external []maps.Frontend
}

// want returns what the service of v should have, one per port, sorted.
func want(v service.View, in Input) []wanted {
	ports := slices.Clone(v.Service.Ports)
	slices.SortStableFunc(ports, func(a, b service.Port) int { return a.PortKey.Compare(b.PortKey) })
	ports = slices.CompactFunc(ports, func(a, b service.Port) bool { return a.PortKey == b.PortKey })
	var ws []wanted
	for _, p := range ports {
		w := wanted{
			name: maps.ServicePort{
				Namespace: v.Name.Namespace, Service: v.Name.Name, Port: p.Name, Proto: maps.Proto(p.Proto),
			},
			choice: endpoints.Choose(endpoints.Inputs{
				Service: v.Service, Port: p, Endpoints: v.Endpoints[p.PortKey], NodeName: in.NodeName,
			}),
			internalLocal: v.Service.InternalPolicy == service.Local,
			externalLocal: v.Service.ExternalPolicy == service.Local,
		}
		w.internal, w.external = frontends(v.Service, p, in.NodePortAddrs)
		ws = append(ws, w)
	}
	return ws
}

// frontends returns what clients dial to reach p. Addresses of a family in
// which the service has no ClusterIP do not count: the API does not serve it.
func frontends(svc *service.Service, p service.Port, nodeAddrs []netip.Addr) (internal, external []maps.Frontend) {
	seen := make(map[maps.Frontend]bool)
	add := func(to *[]maps.Frontend, addrs []netip.Addr, port uint16) {
		for _, a := range addrs {
			f := maps.Frontend{Addr: a, Port: port, Proto: maps.Proto(p.Proto)}
			if !seen[f] && hasFamily(svc, a) {
				seen[f] = true
				*to = append(*to, f)
			}
		}
	}
	add(&internal, svc.ClusterIPs, p.Port)
	add(&external, svc.ExternalIPs, p.Port)
	add(&external, svc.LoadBalancerIPs, p.Port)
	if p.NodePort != 0 {
		add(&external, nodeAddrs, p.NodePort)
	}
	slices.SortFunc(internal, maps.Frontend.Compare)
	slices.SortFunc(external, maps.Frontend.Compare)
	return internal, external
}

func hasFamily(svc *service.Service, a netip.Addr) bool {
	return slices.ContainsFunc(svc.ClusterIPs, func(ip netip.Addr) bool { return ip.Is4() == a.Is4() })
}

// ofFamily returns the endpoints with an address of the family of a, each
// address and port once, sorted.
func ofFamily(eps []service.Endpoint, a netip.Addr) []service.Endpoint {
	var family []service.Endpoint
	for _, e := range eps {
		if e.Addr.Addr().Is4() == a.Is4() {
			family = append(family, e)
		}
	}
	slices.SortStableFunc(family, func(a, b service.Endpoint) int { return a.Addr.Compare(b.Addr) })
	return slices.CompactFunc(family, func(a, b service.Endpoint) bool { return a.Addr == b.Addr })
}
