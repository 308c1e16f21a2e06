package service

import (
	stdmaps "maps"
	"net/netip"
	"slices"
)

// merge combines the slices of one service into the endpoints of each port,
// sorted by address and port.
//
// An address that two entries claim (a pod's address given to the next pod, a pod
// on its way from one slice to another) belongs to the one that is not terminating;
// of two that are alike in that, to the one that is ready, then to the one that
// serves. Between equals the slice with the smallest key wins, so that every node
// decides alike.
func merge(parts map[Name]*Slice) map[PortKey][]Endpoint {
	found := map[PortKey]map[netip.AddrPort]Endpoint{}
	for _, key := range slices.SortedFunc(stdmaps.Keys(parts), Name.Compare) {
		for _, port := range parts[key].Ports {
			if found[port.PortKey] == nil {
				found[port.PortKey] = map[netip.AddrPort]Endpoint{}
			}
			addEndpoints(found[port.PortKey], parts[key].Endpoints, port.Port)
		}
	}
	merged := make(map[PortKey][]Endpoint, len(found))
	for port, set := range found {
		merged[port] = slices.SortedFunc(stdmaps.Values(set), func(a, b Endpoint) int {
			return a.Addr.Compare(b.Addr)
		})
	}
	return merged
}

func addEndpoints(set map[netip.AddrPort]Endpoint, eps []SliceEndpoint, port uint16) {
	for _, ep := range eps {
		addr := netip.AddrPortFrom(ep.Addr, port)
		if have, ok := set[addr]; ok && !prevails(ep, have) {
			continue
		}
		set[addr] = ep.at(addr)
	}
}

// prevails reports whether ep takes the address of have.
func prevails(ep SliceEndpoint, have Endpoint) bool {
	switch {
	case ep.Terminating != have.Terminating:
		return !ep.Terminating
	case ep.Ready != have.Ready:
		return ep.Ready
	}
	return ep.Serving && !have.Serving
}

// at is ep on one of its ports.
func (ep SliceEndpoint) at(addr netip.AddrPort) Endpoint {
	return Endpoint{
		Addr:        addr,
		NodeName:    ep.NodeName,
		Pod:         ep.Pod,
		Ready:       ep.Ready,
		Serving:     ep.Serving,
		Terminating: ep.Terminating,
		ZoneHints:   ep.ZoneHints,
		NodeHints:   ep.NodeHints,
	}
}
