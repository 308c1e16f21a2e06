// Package service is the agent's model of a cluster: plain values. It knows
// what Services, EndpointSlices and Nodes mean to a proxy. It deliberately
// knows no client-go type, no map and no clock: sources fill a Store, the
// agent's loop takes what changed.
package service

import (
	"cmp"
	"net/netip"
)

// Name is a namespaced name.
type Name struct {
	Namespace string
	Name      string
}

// String formats n as "namespace/name".
func (n Name) String() string { return n.Namespace + "/" + n.Name }

// Compare orders names by namespace, then name.
func (n Name) Compare(m Name) int {
	return cmp.Or(cmp.Compare(n.Namespace, m.Namespace), cmp.Compare(n.Name, m.Name))
}

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols ebb balances.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// PortKey names a port within a service. The same name (also the empty one)
// may exist once per protocol.
type PortKey struct {
	Name  string
	Proto Protocol
}

// Compare orders keys by name, then protocol.
func (k PortKey) Compare(l PortKey) int {
	return cmp.Or(cmp.Compare(k.Name, l.Name), cmp.Compare(k.Proto, l.Proto))
}

// Port is one port of a Service. NodePort is 0 where there is none.
type Port struct {
	PortKey
	Port     uint16
	NodePort uint16
}

// Policy is a traffic policy of a Service.
type Policy uint8

// The traffic policies of Kubernetes.
const (
	Cluster Policy = iota
	Local
)

// Service is what a proxy needs of a v1 Service. Addresses are never
// v4-mapped. It is immutable once it is in a Store.
type Service struct {
	Name            Name
	ClusterIPs      []netip.Addr
	ExternalIPs     []netip.Addr
	LoadBalancerIPs []netip.Addr // status.loadBalancer.ingress with ipMode VIP
	InternalPolicy  Policy
	ExternalPolicy  Policy
	Ports           []Port
}

// ExternallyAccessible reports whether anything but a ClusterIP leads to p
// (kube-proxy's externallyAccessible).
func (s *Service) ExternallyAccessible(p Port) bool {
	return p.NodePort != 0 || len(s.ExternalIPs) > 0 || len(s.LoadBalancerIPs) > 0
}

// Endpoint is one address and port behind a service port. Conditions are
// resolved: nil in the API is ready, serving and not terminating.
type Endpoint struct {
	Addr        netip.AddrPort
	NodeName    string // empty: unknown, treated as remote
	Ready       bool
	Serving     bool
	Terminating bool
}

// Slice is what a proxy needs of a discovery/v1 EndpointSlice. It is
// immutable once it is in a Store.
type Slice struct {
	// Key is the slice's own name, Service the one it belongs to.
	Key       Name
	Service   Name
	Ports     []SlicePort
	Endpoints []SliceEndpoint
}

// SlicePort is a port every endpoint of a Slice has.
type SlicePort struct {
	PortKey
	Port uint16
}

// SliceEndpoint is an endpoint of a Slice before it is combined with ports.
type SliceEndpoint struct {
	Addr        netip.Addr
	NodeName    string
	Ready       bool
	Serving     bool
	Terminating bool
}

// Node is what a proxy needs of the node it runs on.
type Node struct {
	Name string
	// Addrs are the node's addresses (status.addresses, InternalIP and
	// ExternalIP), InternalIP first. The first of a family is its primary one.
	Addrs []netip.Addr
}
