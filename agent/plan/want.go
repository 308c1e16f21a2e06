package plan

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ebb-lb/ebb/agent/endpoints"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// wanted is what a service port should have in the maps, before numbers.
type wanted struct {
	name     maps.ServicePort
	choice   endpoints.Choice
	affinity time.Duration
	// ranges are who may use the restricted frontends.
	ranges     map[netip.Prefix]struct{}
	restricted func(maps.Frontend) bool
	// outside tells which addresses are load balancers' or external IPs.
	outside func(netip.Addr) bool
	// nodePort is the port of the frontends that are node ports; 0: none.
	nodePort uint16
	byPacket bool
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
				Service: v.Service, Port: p, Endpoints: v.Endpoints[p.PortKey],
				NodeName: in.NodeName, Zone: in.Zone,
			}),
			affinity:   v.Service.AffinityTimeout,
			restricted: restricted(v.Service, p.Port),
			outside: func(a netip.Addr) bool {
				return slices.Contains(v.Service.ExternalIPs, a) || slices.Contains(v.Service.LoadBalancerIPs, a)
			},
			nodePort: p.NodePort,
			byPacket: v.Service.ByPacket,
		}
		w.internal, w.external = frontends(v.Service, p, in.nodePortAddrs())
		if slices.ContainsFunc(w.external, w.restricted) {
			w.ranges = sourceRanges(v.Service)
		}
		ws = append(ws, w)
	}
	return ws
}

// nodePortAddrs are the addresses frontends of node ports have.
func (in Input) nodePortAddrs() []netip.Addr {
	if !in.NodePortsAnywhere {
		return in.NodePortAddrs
	}
	return append(slices.Clone(in.NodePortAddrs), netip.IPv4Unspecified(), netip.IPv6Unspecified())
}

// isNodePort tells node ports from other external frontends, which may be on an
// address of the node too.
func (w wanted) isNodePort(f maps.Frontend, nodeAddrs []netip.Addr) bool {
	return w.nodePort != 0 && f.Port == w.nodePort && slices.Contains(nodeAddrs, f.Addr)
}

// restricted tells which frontends of a port of svc are for its source ranges only: those of
// load balancers' addresses. Node ports and external IPs are for everybody, also node
// ports at an address that is a load balancer's (k3s gives Services the nodes' own).
func restricted(svc *service.Service, port uint16) func(maps.Frontend) bool {
	_, v4 := svc.SourceRanges(true)
	_, v6 := svc.SourceRanges(false)
	return func(f maps.Frontend) bool {
		return (f.Addr.Is4() && v4 || f.Addr.Is6() && v6) && f.Port == port && slices.Contains(svc.LoadBalancerIPs, f.Addr)
	}
}

// sourceRanges returns the ranges of those families that are restricted.
func sourceRanges(svc *service.Service) map[netip.Prefix]struct{} {
	all := make(map[netip.Prefix]struct{})
	for _, v4 := range []bool{true, false} {
		ranges, _ := svc.SourceRanges(v4)
		for _, r := range ranges {
			all[r.Masked()] = struct{}{}
		}
	}
	return all
}

// NeedsPackets reports whether packets of this node's pods to svc have to be
// translated, since their sockets are not given backends: a Service says so, sockets
// of its protocol are not asked, or its source ranges depend on the pod. pods are the
// ranges by which pods are known.
func NeedsPackets(svc *service.Service, pods []netip.Prefix) bool {
	if svc.ByPacket || slices.ContainsFunc(svc.Ports, func(p service.Port) bool { return p.Proto == service.SCTP }) {
		return true
	}
	ranges := sourceRanges(svc)
	return slices.ContainsFunc(svc.LoadBalancerIPs, func(a netip.Addr) bool {
		_, restricted := svc.SourceRanges(a.Is4())
		all, none := admitsPods(ranges, pods, a.Is4())
		return hasFamily(svc, a) && restricted && !all && !none
	})
}

// admitsPods tells whether all pods, or none, are in the source ranges of one
// family. If pods are in no known ranges, or some in and some not, neither.
func admitsPods(ranges map[netip.Prefix]struct{}, pods []netip.Prefix, v4 bool) (all, none bool) {
	pods = slices.DeleteFunc(slices.Clone(pods), func(p netip.Prefix) bool { return p.Addr().Is4() != v4 })
	all, none = len(pods) > 0, len(pods) > 0
	for _, p := range pods {
		in, touched := false, false
		for r := range ranges {
			in = in || r.Bits() <= p.Bits() && r.Contains(p.Addr())
			touched = touched || r.Overlaps(p)
		}
		all, none = all && in, none && !touched
	}
	return all, none
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
