package service

import "slices"

// Equal reports whether s and t mean the same to a proxy.
func (s *Service) Equal(t *Service) bool {
	return s.Name == t.Name &&
		slices.Equal(s.ClusterIPs, t.ClusterIPs) &&
		slices.Equal(s.ExternalIPs, t.ExternalIPs) &&
		slices.Equal(s.LoadBalancerIPs, t.LoadBalancerIPs) &&
		s.InternalPolicy == t.InternalPolicy &&
		s.ExternalPolicy == t.ExternalPolicy &&
		slices.Equal(s.Ports, t.Ports)
}

// Equal reports whether s and t mean the same to a proxy.
func (s *Slice) Equal(t *Slice) bool {
	return s.Key == t.Key && s.Service == t.Service &&
		slices.Equal(s.Ports, t.Ports) &&
		slices.Equal(s.Endpoints, t.Endpoints)
}

// Equal reports whether n and m mean the same to a proxy.
func (n Node) Equal(m Node) bool {
	return n.Name == m.Name && slices.Equal(n.Addrs, m.Addrs)
}
