package maps

import (
	"fmt"
	"net/netip"
)

// Contents is what the control plane has put into the maps: plain values.
type Contents struct {
	Frontends    map[Frontend]Service
	ServicePorts map[ServicePortID]ServicePort
	Backends     map[BackendID]Backend // without Free ones
	// Tables has each table that a frontend points to.
	Tables       map[Table][]BackendID
	SourceRanges map[SourceRange]struct{}
	ServiceCIDRs map[netip.Prefix]struct{}
	Secured      map[netip.Prefix]struct{}
	Addresses    map[netip.Addr]AddressFlags
	Runtime      Runtime
	Devices      map[uint32]Device
	Stations     map[Station]uint32
}

// Contents reads all the control plane has written. It is a consistent view
// only while nobody writes. The maps in it are the caller's.
func (s *Set) Contents() (Contents, error) {
	var c Contents
	var err error
	if c.Frontends, err = s.Frontends().All(); err != nil {
		return Contents{}, err
	}
	if c.ServicePorts, err = s.ServicePorts().All(); err != nil {
		return Contents{}, err
	}
	if c.Backends, err = s.Backends().All(); err != nil {
		return Contents{}, err
	}
	if c.Tables, err = ReadTables(c.Frontends, s.Slots().Read); err != nil {
		return Contents{}, err
	}
	if c.SourceRanges, err = s.SourceRanges().All(); err != nil {
		return Contents{}, err
	}
	if c.ServiceCIDRs, err = s.ServiceCIDRs().All(); err != nil {
		return Contents{}, err
	}
	if c.Secured, err = s.Secured().All(); err != nil {
		return Contents{}, err
	}
	if c.Addresses, err = s.Addresses(ServiceAddress | NodeAddress).All(); err != nil {
		return Contents{}, err
	}
	if c.Runtime, err = s.Runtime().Get(); err != nil {
		return Contents{}, err
	}
	if c.Devices, err = s.Devices().All(); err != nil {
		return Contents{}, err
	}
	if c.Stations, err = s.Stations().All(); err != nil {
		return Contents{}, err
	}
	return c, nil
}

// ReadTables reads each table the frontends point to, once.
func ReadTables(frontends map[Frontend]Service, read func(Table) ([]BackendID, error)) (map[Table][]BackendID, error) {
	out := make(map[Table][]BackendID)
	for f, s := range frontends {
		for _, t := range []Table{s.Cluster, s.Local} {
			if _, ok := out[t]; ok || t.Length == 0 {
				continue
			}
			slots, err := read(t)
			if err != nil {
				return nil, fmt.Errorf("frontend %s: %w", f, err)
			}
			out[t] = slots
		}
	}
	return out, nil
}

// EachFlow calls fn for the established flows of s. See Flows.Each.
func (s *Set) EachFlow(fn func(FlowKey, Flow) bool) error { return s.Flows().Each(fn) }

// EachAffinity calls fn for the backends that clients of s keep. See
// Affinities.Each.
func (s *Set) EachAffinity(fn func(AffinityKey, Affinity) bool) error { return s.Affinity().Each(fn) }

// EachSocket calls fn for what sockets of this node have. See Sockets.Each.
func (s *Set) EachSocket(fn func(SocketKey, SocketPeer) bool) error { return s.Sockets().Each(fn) }

// EachClosed calls fn for the connections of s that were closed. See Flows.Each.
func (s *Set) EachClosed(fn func(FlowKey, Flow) bool) error { return s.Closed().Each(fn) }

// EachHalfOpen calls fn for the flows of s that are not proved. See Flows.Each.
func (s *Set) EachHalfOpen(fn func(FlowKey, Flow) bool) error { return s.HalfOpen().Each(fn) }
