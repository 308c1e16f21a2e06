package service

import (
	stdmaps "maps"
	"slices"
)

// Equal reports whether s and t mean the same to a proxy.
func (s *Service) Equal(t *Service) bool {
	return s.Name == t.Name &&
		slices.Equal(s.ClusterIPs, t.ClusterIPs) &&
		slices.Equal(s.ExternalIPs, t.ExternalIPs) &&
		slices.Equal(s.LoadBalancerIPs, t.LoadBalancerIPs) &&
		slices.Equal(s.LoadBalancerSourceRanges, t.LoadBalancerSourceRanges) &&
		s.InternalPolicy == t.InternalPolicy &&
		s.ExternalPolicy == t.ExternalPolicy &&
		s.AffinityTimeout == t.AffinityTimeout &&
		s.HealthCheckNodePort == t.HealthCheckNodePort &&
		s.ByPacket == t.ByPacket &&
		slices.Equal(s.Ports, t.Ports)
}

// Equal reports whether s and t mean the same to a proxy. When they were
// triggered does not count.
func (s *Slice) Equal(t *Slice) bool {
	return s.Key == t.Key && s.Service == t.Service &&
		slices.Equal(s.Ports, t.Ports) &&
		slices.Equal(s.Endpoints, t.Endpoints)
}

// Equal reports whether n and m mean the same to a proxy.
func (n Node) Equal(m Node) bool {
	return n.Name == m.Name && n.Known == m.Known && n.Deleting == m.Deleting && n.Zone == m.Zone &&
		slices.Equal(n.Addrs, m.Addrs) &&
		slices.Equal(n.PodCIDRs, m.PodCIDRs) &&
		slices.Equal(n.Taints, m.Taints) &&
		stdmaps.Equal(n.Labels, m.Labels) &&
		stdmaps.Equal(n.Annotations, m.Annotations)
}
