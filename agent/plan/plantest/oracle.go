package plantest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// Owners returns which service has which frontend.
func (k *Kernel) Owners() map[maps.Frontend]service.Name {
	owners := make(map[maps.Frontend]service.Name)
	for f, v := range k.content.frontends {
		owners[f] = k.serviceOf(v.ServicePort)
	}
	return owners
}

// claims are all frontends of a cluster, with everything a claimant wants.
type claims map[maps.Frontend]map[service.Name]leads

// leads says where a frontend should lead, in the words of the cluster.
type leads struct {
	Port           string
	ExternalLocal  bool
	InternalLocal  bool
	Cluster, Local string
	Affinity       time.Duration
	Any            bool   // endpoint, on any node
	Allowed        string // source ranges; "all" if any client may come
}

// Content returns where every frontend leads, one line each.
func (k *Kernel) Content() map[maps.Frontend]string {
	out := make(map[maps.Frontend]string)
	for f, v := range k.content.frontends {
		out[f] = leads{
			Port: k.content.ports[v.ServicePort].String(), ExternalLocal: v.ExternalLocal,
			InternalLocal: v.InternalLocal, Affinity: v.Affinity, Any: v.HasEndpoints,
			Cluster: k.addrs(v.Cluster), Local: k.addrs(v.Local), Allowed: k.allowed(f, v),
		}.String()
	}
	return out
}

func (l leads) String() string {
	type plain leads // without this method
	return fmt.Sprintf("%+v", plain(l))
}

// allowed lists who may use a frontend, of its family.
func (k *Kernel) allowed(f maps.Frontend, v maps.Service) string {
	if !v.Restricted {
		return everybody
	}
	ranges, err := k.SourceRanges().All()
	if err != nil {
		k.violate("read: %v", err)
	}
	var all []string
	for r := range ranges {
		if r.ServicePort == v.ServicePort && r.Prefix.Addr().Is4() == f.Addr.Is4() {
			all = append(all, r.Prefix.String())
		}
	}
	return join(all)
}

const everybody = "all"

func (k *Kernel) addrs(t maps.Table) string {
	var all []string
	for i := range t.Length {
		b := k.content.backends[k.slots[t.Offset+i]]
		all = append(all, b.Addr.String()+"="+b.State.String())
	}
	return join(all)
}

func join(all []string) string {
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}

// Wanted returns where every frontend of the cluster should lead, given who had
// which before.
func (c *Cluster) Wanted(before map[maps.Frontend]service.Name) map[maps.Frontend]string {
	all := make(claims)
	for _, v := range c.Services {
		for _, p := range v.Service.Ports {
			c.claimPort(all, v, p)
		}
	}
	out := make(map[maps.Frontend]string)
	for f, by := range all {
		var winner service.Name
		for name := range by {
			if winner == (service.Name{}) || name.Compare(winner) < 0 {
				winner = name
			}
		}
		if _, still := by[before[f]]; still {
			winner = before[f]
		}
		out[f] = by[winner].String()
	}
	return out
}

// WantedAddresses returns whose the addresses are that frontends are on, by what
// the owners of those frontends say of them.
func (c *Cluster) WantedAddresses(k *Kernel) map[netip.Addr]maps.AddressFlags {
	want := make(map[netip.Addr]maps.AddressFlags)
	for f, owner := range k.Owners() {
		s := c.Services[owner].Service
		var flags maps.AddressFlags
		if slices.Contains(s.ClusterIPs, f.Addr) {
			flags |= maps.AddressClusterIP
		}
		if slices.Contains(s.ExternalIPs, f.Addr) || slices.Contains(s.LoadBalancerIPs, f.Addr) {
			flags |= maps.AddressExternal
		}
		if flags != 0 {
			want[f.Addr] |= flags
		}
	}
	return want
}

// Strays returns what leads to an endpoint that does not serve, or is not there
// any more: nothing may, however little room there is.
func (c *Cluster) Strays(k *Kernel) []string {
	var strays []string
	k.walk(func(f maps.Frontend, v maps.Service, slot uint32) {
		b, p := k.content.backends[k.slots[slot]], k.content.ports[v.ServicePort]
		eps := c.Services[k.serviceOf(v.ServicePort)].Endpoints[service.PortKey{Name: p.Port, Proto: service.Protocol(p.Proto)}]
		if !slices.ContainsFunc(eps, func(e service.Endpoint) bool { return e.Addr == b.Addr && e.Serving }) {
			strays = append(strays, fmt.Sprintf("%s of %s leads to %s", f, p, b.Addr))
		}
	})
	return strays
}

func (c *Cluster) claimPort(all claims, v service.View, p service.Port) {
	s := v.Service
	add := func(a netip.Addr, port uint16, external bool) {
		family := slices.ContainsFunc(s.ClusterIPs, func(ip netip.Addr) bool { return ip.Is4() == a.Is4() })
		if port == 0 || !family {
			return
		}
		f := maps.Frontend{Addr: a, Port: port, Proto: maps.Proto(p.Proto)}
		if all[f] == nil {
			all[f] = make(map[service.Name]leads)
		}
		if _, again := all[f][v.Name]; !again {
			l := c.lead(v, p, a.Is4(), external)
			if slices.Contains(s.LoadBalancerIPs, a) && external && port == p.Port {
				l.Allowed = allowed(s.LoadBalancerSourceRanges, a.Is4())
			}
			all[f][v.Name] = l
		}
	}
	for _, a := range s.ClusterIPs {
		add(a, p.Port, false)
	}
	for _, a := range slices.Concat(s.ExternalIPs, s.LoadBalancerIPs) {
		add(a, p.Port, true)
	}
	for _, a := range nodeAddrs() {
		add(a, p.NodePort, true)
	}
}

func (c *Cluster) lead(v service.View, p service.Port, v4, external bool) leads {
	eps := v.Endpoints[p.PortKey]
	l := leads{
		Port:    maps.ServicePort{Namespace: v.Name.Namespace, Service: v.Name.Name, Port: p.Name, Proto: maps.Proto(p.Proto)}.String(),
		Cluster: c.candidates(eps, v4, false), Affinity: v.Service.AffinityTimeout, Allowed: everybody,
	}
	for _, e := range eps {
		l.Any = l.Any || e.Addr.Addr().Is4() == v4 && (e.Ready || e.Serving && e.Terminating)
	}
	switch {
	case !external && v.Service.InternalPolicy == service.Local:
		l.InternalLocal = true
		l.Cluster = c.candidates(eps, v4, true)
	case external && v.Service.ExternalPolicy == service.Local:
		l.ExternalLocal = true
		l.Local = c.candidates(eps, v4, true)
	}
	return l
}

// allowed lists the ranges that clients of a family must be in.
func allowed(ranges []netip.Prefix, v4 bool) string {
	if len(ranges) == 0 {
		return everybody
	}
	var all []string
	for _, r := range ranges {
		switch {
		case r.Addr().Is4() != v4:
		case r.Bits() == 0:
			return everybody
		default:
			all = append(all, r.String())
		}
	}
	return join(all)
}

func (c *Cluster) candidates(eps []service.Endpoint, v4, local bool) string {
	var ready, here, inZone, standIn []string
	allNodes, allZones := true, true
	for _, e := range eps {
		text := e.Addr.String() + "=active"
		switch {
		case e.Addr.Addr().Is4() != v4, local && e.NodeName != NodeName:
		case e.Ready:
			ready = append(ready, text)
			if slices.Contains(e.NodeHints.Names(), NodeName) {
				here = append(here, text)
			}
			if slices.Contains(e.ZoneHints.Names(), c.Zone) {
				inZone = append(inZone, text)
			}
			allNodes = allNodes && len(e.NodeHints.Names()) > 0
			allZones = allZones && len(e.ZoneHints.Names()) > 0
		case e.Serving && e.Terminating:
			standIn = append(standIn, e.Addr.String()+"=draining")
		}
	}
	switch {
	case len(ready) == 0:
		return join(standIn)
	case !local && allNodes && len(here) > 0:
		return join(here)
	case !local && allZones && len(inZone) > 0:
		return join(inZone)
	}
	return join(ready)
}
