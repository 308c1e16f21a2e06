package service

import (
	stdmaps "maps"
	"net/netip"
	"slices"
	"time"
)

// View is what a proxy needs to know of one service.
type View struct {
	Name Name
	// Service is nil if it was deleted or never known; then Endpoints is nil.
	Service *Service
	// Endpoints are the endpoints of each port, of both address families,
	// sorted by address and port. A port nobody serves has no entry.
	Endpoints map[PortKey][]Endpoint
	// Received is when the oldest change that is in this view, and was in
	// none before, reached the Store. It is zero if there is none: the view is
	// there because MarkDirty or MarkAllDirty asked for it.
	Received time.Time
	// Triggered is when the oldest change of endpoints that is in this view,
	// and was in none before, happened in the cluster. It is zero if nobody
	// said, and for what happened before the Store was made or took endpoints
	// away with their whole slice.
	Triggered time.Time
}

// Changes is what changed since the last Take. Node and ServiceCIDRs are
// complete also when they did not change.
type Changes struct {
	Node        Node
	NodeChanged bool
	// ServiceCIDRs are the ranges ClusterIPs are taken from, sorted.
	ServiceCIDRs        []netip.Prefix
	ServiceCIDRsChanged bool
	Services            []View // sorted by name
}

// Empty reports whether nothing changed.
func (c Changes) Empty() bool {
	return !c.NodeChanged && !c.ServiceCIDRsChanged && len(c.Services) == 0
}

// times are those of the oldest change of a service nobody has taken yet.
type times struct {
	received, triggered time.Time
}

// MarkDirty makes the next Take contain these services, whether they changed or
// not. It does not signal Changed: its caller is the loop, which knows when it
// wants to try again.
func (s *Store) MarkDirty(names ...Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		s.mark(name)
	}
}

// MarkAllDirty makes the next Take contain the node, the ServiceCIDRs and
// everything known. Like MarkDirty, it does not signal Changed.
func (s *Store) MarkAllDirty() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.services {
		s.mark(name)
	}
	s.nodeDirty, s.cidrsDirty = true, true
}

// PutBack makes the next Take contain what c did, as it is by then, because c
// could not be applied. Unlike after MarkDirty, the times are those of the
// oldest change that is still not applied. It does not signal Changed.
func (s *Store) PutBack(c Changes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range c.Services {
		t := s.dirty[v.Name]
		s.dirty[v.Name] = times{earlier(t.received, v.Received), earlier(t.triggered, v.Triggered)}
	}
	s.nodeDirty = s.nodeDirty || c.NodeChanged
	s.cidrsDirty = s.cidrsDirty || c.ServiceCIDRsChanged
}

// earlier returns the earlier of two times; a zero one is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Take returns what changed since the last Take; nothing before SetSynced.
// The caller must not modify what it gets.
func (s *Store) Take() Changes {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.synced {
		return Changes{}
	}
	c := Changes{
		Node: s.node, NodeChanged: s.nodeDirty,
		ServiceCIDRs: union(s.cidrs), ServiceCIDRsChanged: s.cidrsDirty,
	}
	for _, name := range slices.SortedFunc(stdmaps.Keys(s.dirty), Name.Compare) {
		c.Services = append(c.Services, s.view(name))
	}
	clear(s.dirty)
	s.nodeDirty, s.cidrsDirty = false, false
	s.counts.taken()
	return c
}

func (s *Store) view(name Name) View {
	t := s.dirty[name]
	v := View{Name: name, Received: t.received}
	if e := s.services[name]; e != nil && e.service != nil {
		v.Service = e.service
		v.Endpoints = merge(e.slices)
		v.Triggered = t.triggered
	}
	return v
}

// mark makes the next Take contain a service.
func (s *Store) mark(name Name) {
	if _, is := s.dirty[name]; !is {
		s.dirty[name] = times{}
	}
}

// touch marks a service as changed; the oldest change counts.
func (s *Store) touch(name Name) {
	s.revision++
	s.counts.Changed = s.now()
	t := s.dirty[name]
	if t.received.IsZero() {
		t.received = s.counts.Changed
		s.dirty[name] = t
	}
}

// trigger notes when a change of a service happened, if this Store can have
// been told of it in time.
func (s *Store) trigger(name Name, at time.Time) {
	if !at.After(s.started) {
		return
	}
	t := s.dirty[name]
	t.triggered = earlier(t.triggered, at)
	s.dirty[name] = t
}
