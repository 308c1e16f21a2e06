package service

import (
	stdmaps "maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Store gathers what a source knows and remembers what changed. A source
// fills it, the agent's loop takes from it; it is safe for concurrent use.
// Nothing is handed out before SetSynced, so that nobody acts on half a view.
// An update equal to what is stored is no change.
type Store struct {
	now     func() time.Time
	started time.Time
	changed chan struct{}

	mu         sync.Mutex
	synced     bool
	services   map[Name]*entry
	owners     map[Name]Name // slice → its service
	dirty      map[Name]times
	node       Node
	nodeDirty  bool
	cidrs      map[string][]netip.Prefix // ServiceCIDR → its ranges
	cidrsDirty bool
	revision   uint64 // counts changes
	counts     Counts
}

// entry is one service and the slices that name it; either may be absent.
type entry struct {
	service *Service
	slices  map[Name]*Slice
}

func (e *entry) empty() bool { return e.service == nil && len(e.slices) == 0 }

// NewStore returns an empty Store. now tells when a change is received;
// usually time.Now. What was triggered before the Store was made is not counted
// as late.
func NewStore(now func() time.Time) *Store {
	return &Store{
		now:      now,
		started:  now(),
		changed:  make(chan struct{}, 1),
		services: map[Name]*entry{},
		owners:   map[Name]Name{},
		dirty:    map[Name]times{},
		cidrs:    map[string][]netip.Prefix{},
	}
}

// Changed delivers a value when Take has something new. Signals are
// coalesced: one value may stand for many changes.
func (s *Store) Changed() <-chan struct{} { return s.changed }

// PutService inserts or replaces a service. The Store owns svc from now on.
func (s *Store) PutService(svc *Service) {
	s.update(func() { s.putService(svc) })
}

// DeleteService removes a service. An unknown one is no change.
func (s *Store) DeleteService(name Name) {
	s.update(func() { s.deleteService(name) })
}

// PutSlice inserts or replaces a slice, which may change its service. The
// Store owns sl from now on.
func (s *Store) PutSlice(sl *Slice) {
	s.update(func() { s.putSlice(sl) })
}

// DeleteSlice removes the slice with this key. An unknown one is no change.
func (s *Store) DeleteSlice(key Name) {
	s.update(func() { s.deleteSlice(key) })
}

// PutNode replaces what is known of the own node. The Store owns n.Addrs from
// now on.
func (s *Store) PutNode(n Node) {
	s.update(func() { s.putNode(n) })
}

// DeleteNode notes that the own node's object is gone. Its name, addresses, zone
// and pod ranges stay: what runs on it still does, and is still reached.
func (s *Store) DeleteNode() {
	s.update(s.loseNode)
}

func (s *Store) loseNode() {
	n := s.node
	s.putNode(Node{Name: n.Name, Addrs: n.Addrs, Zone: n.Zone, PodCIDRs: n.PodCIDRs})
}

// PutServiceCIDR inserts or replaces the ranges of one ServiceCIDR object. The
// Store owns ranges from now on.
func (s *Store) PutServiceCIDR(name string, ranges []netip.Prefix) {
	s.update(func() { s.putServiceCIDR(name, ranges) })
}

// DeleteServiceCIDR removes a ServiceCIDR object. An unknown one is no change.
func (s *Store) DeleteServiceCIDR(name string) {
	s.update(func() { s.putServiceCIDR(name, nil) })
}

// Content is everything a source knows at one time.
type Content struct {
	Services     []*Service
	Slices       []*Slice
	ServiceCIDRs map[string][]netip.Prefix // by the name of the object
	Node         Node
}

// Replace makes the Store know exactly c, in one step. Only what differs
// becomes a change. The Store owns what is in c from now on.
func (s *Store) Replace(c Content) {
	s.update(func() {
		s.deleteOthers(c)
		for _, svc := range c.Services {
			s.putService(svc)
		}
		for _, sl := range c.Slices {
			s.putSlice(sl)
		}
		for name, ranges := range c.ServiceCIDRs {
			s.putServiceCIDR(name, ranges)
		}
		if !c.Node.Known && s.node.Known {
			s.loseNode()
			return
		}
		s.putNode(c.Node)
	})
}

// SetSynced says that the source has delivered everything it had at start.
// It always signals Changed the first time: also an empty view is news.
func (s *Store) SetSynced() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.synced {
		return
	}
	s.synced = true
	s.signal()
}

// Synced reports whether SetSynced was called.
func (s *Store) Synced() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.synced
}

// update runs f with the Store locked and signals if f changed anything.
func (s *Store) update(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.revision
	f()
	if s.synced && s.revision != before {
		s.signal()
	}
}

func (s *Store) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *Store) entry(name Name) *entry {
	e := s.services[name]
	if e == nil {
		e = &entry{slices: map[Name]*Slice{}}
		s.services[name] = e
	}
	return e
}

// forgetIfEmpty keeps the Store from growing with every name it ever saw.
func (s *Store) forgetIfEmpty(name Name) {
	if e := s.services[name]; e != nil && e.empty() {
		delete(s.services, name)
	}
}

func (s *Store) putService(svc *Service) {
	e := s.entry(svc.Name)
	if e.service != nil && e.service.Equal(svc) {
		return
	}
	e.service = svc
	s.counts.service()
	s.touch(svc.Name)
}

func (s *Store) deleteService(name Name) {
	e := s.services[name]
	if e == nil || e.service == nil {
		return
	}
	e.service = nil
	s.counts.service()
	s.forgetIfEmpty(name)
	s.touch(name)
}

func (s *Store) putSlice(sl *Slice) {
	if owner, ok := s.owners[sl.Key]; ok {
		if s.services[owner].slices[sl.Key].Equal(sl) {
			return
		}
		if owner != sl.Service {
			s.deleteSlice(sl.Key)
		}
	}
	s.entry(sl.Service).slices[sl.Key] = sl
	s.owners[sl.Key] = sl.Service
	s.counts.slice()
	s.touch(sl.Service)
	s.trigger(sl.Service, sl.Triggered)
}

func (s *Store) deleteSlice(key Name) {
	owner, ok := s.owners[key]
	if !ok {
		return
	}
	delete(s.owners, key)
	delete(s.services[owner].slices, key)
	s.forgetIfEmpty(owner)
	s.counts.slice()
	s.touch(owner)
}

func (s *Store) putNode(n Node) {
	if s.node.Equal(n) {
		return
	}
	s.node = n
	s.nodeDirty = true
	s.revision++
}

// putServiceCIDR counts as a change only if the union of all objects does: the
// same range in two of them is one.
func (s *Store) putServiceCIDR(name string, ranges []netip.Prefix) {
	before := union(s.cidrs)
	if len(ranges) == 0 {
		delete(s.cidrs, name)
	} else {
		s.cidrs[name] = ranges
	}
	if slices.Equal(before, union(s.cidrs)) {
		return
	}
	s.cidrsDirty = true
	s.revision++
}

// union returns all ranges, sorted, each once.
func union(cidrs map[string][]netip.Prefix) []netip.Prefix {
	all := slices.Concat(slices.Collect(stdmaps.Values(cidrs))...)
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all)
}

// deleteOthers removes what is not in c.
func (s *Store) deleteOthers(c Content) {
	known := make(map[Name]bool, len(c.Services))
	for _, svc := range c.Services {
		known[svc.Name] = true
	}
	for name := range s.services {
		if !known[name] {
			s.deleteService(name)
		}
	}
	keys := make(map[Name]bool, len(c.Slices))
	for _, sl := range c.Slices {
		keys[sl.Key] = true
	}
	for key := range s.owners {
		if !keys[key] {
			s.deleteSlice(key)
		}
	}
	for name := range s.cidrs {
		if _, ok := c.ServiceCIDRs[name]; !ok {
			s.putServiceCIDR(name, nil)
		}
	}
}
