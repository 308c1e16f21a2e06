// Package service is the agent's model of a cluster: plain values. It knows
// what Services, EndpointSlices and Nodes mean to a proxy. It deliberately
// knows no client-go type, no map and no clock: sources fill a Store, the
// agent's loop takes what changed.
package service

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
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
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
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
	// LoadBalancerSourceRanges are the clients LoadBalancerIPs are for; see
	// SourceRanges.
	LoadBalancerSourceRanges []netip.Prefix
	InternalPolicy           Policy
	ExternalPolicy           Policy
	// AffinityTimeout is how long a client keeps its backend after its last
	// new connection; 0: it does not.
	AffinityTimeout time.Duration
	// HealthCheckNodePort is where load balancers ask whether this node has
	// local endpoints; 0: nowhere.
	HealthCheckNodePort uint16
	// ByPacket: sockets of pods leave the Service to programs on their links.
	ByPacket bool
	Ports    []Port
}

// ExternallyAccessible reports whether anything but a ClusterIP leads to p
// (kube-proxy's externallyAccessible).
func (s *Service) ExternallyAccessible(p Port) bool {
	return p.NodePort != 0 || len(s.ExternalIPs) > 0 || len(s.LoadBalancerIPs) > 0
}

// SourceRanges returns the ranges of one family that clients of the load
// balancer addresses must be in; restricted is false if any client may come.
//
// A list that names only ranges of the other family allows nobody of this one:
// whoever restricts access has said who may come. A range of length 0 opens its
// family.
func (s *Service) SourceRanges(v4 bool) (ranges []netip.Prefix, restricted bool) {
	for _, r := range s.LoadBalancerSourceRanges {
		if r.IsValid() && r.Addr().Is4() == v4 {
			ranges = append(ranges, r)
		}
	}
	if slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Bits() == 0 }) {
		return nil, false
	}
	return ranges, len(s.LoadBalancerSourceRanges) > 0
}

// Endpoint is one address and port behind a service port. Conditions are
// resolved: nil in the API is ready, serving and not terminating.
type Endpoint struct {
	Addr        netip.AddrPort
	NodeName    string // empty: unknown, treated as remote
	Pod         Name   // the pod behind it, for people; zero if unknown
	Ready       bool
	Serving     bool
	Terminating bool
	// ZoneHints and NodeHints are who should use this endpoint, wherever it is.
	ZoneHints, NodeHints NameSet
}

// Slice is what a proxy needs of a discovery/v1 EndpointSlice. It is
// immutable once it is in a Store.
type Slice struct {
	// Key is the slice's own name, Service the one it belongs to.
	Key       Name
	Service   Name
	Ports     []SlicePort
	Endpoints []SliceEndpoint
	// Triggered is when the pod or service changed that made this version of
	// the slice; zero if unknown. It says nothing about the endpoints.
	Triggered time.Time
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
	Pod         Name
	Ready       bool
	Serving     bool
	Terminating bool
	ZoneHints   NameSet
	NodeHints   NameSet
}

// Node is what a proxy needs of the node it runs on. It is immutable once it
// is in a Store.
type Node struct {
	Name string
	// Known is false while the cluster has no object of that name; then the
	// name, and addresses, zone and pod ranges of an earlier object, are all
	// there is.
	Known bool
	// Deleting: the object waits for its finalizers.
	Deleting bool
	// Addrs are the node's addresses (status.addresses, InternalIP and
	// ExternalIP), InternalIP first. The first of a family is its primary one.
	Addrs []netip.Addr
	// PodCIDRs are the ranges the addresses of this node's pods are taken
	// from; none where the CNI does not tell.
	PodCIDRs []netip.Prefix
	// Zone is the label topology.kubernetes.io/zone; empty: none.
	Zone string
	// Labels and Annotations are those the source was told to keep. All of
	// them would make every note some controller leaves on the object a
	// change.
	Labels, Annotations map[string]string
	Taints              []Taint
}

// Taint is a taint of a Node.
type Taint struct {
	Key, Value, Effect string
}
