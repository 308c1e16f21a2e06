package service

import (
	stdmaps "maps"
	"slices"
	"sync"
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
	// none before, reached the Store.
	Received time.Time
}

// Changes is what changed since the last Take.
type Changes struct {
	Node        Node
	NodeChanged bool
	Services    []View // sorted by name
}

// Empty reports whether nothing changed.
func (c Changes) Empty() bool { return !c.NodeChanged && len(c.Services) == 0 }

// Store gathers what a source knows and remembers what changed. A source
// fills it, the agent's loop takes from it; it is safe for concurrent use.
// Nothing is handed out before SetSynced, so that nobody acts on half a view.
// An update equal to what is stored is no change.
type Store struct {
	now     func() time.Time
	changed chan struct{}

	mu        sync.Mutex
	synced    bool
	services  map[Name]*entry
	owners    map[Name]Name // slice → its service
	dirty     map[Name]time.Time
	node      Node
	nodeDirty bool
	revision  uint64 // counts changes
}

// entry is one service and the slices that name it; either may be absent.
type entry struct {
	service *Service
	slices  map[Name]*Slice
}

func (e *entry) empty() bool { return e.service == nil && len(e.slices) == 0 }

// NewStore returns an empty Store. now tells when a change is received;
// usually time.Now.
func NewStore(now func() time.Time) *Store {
	return &Store{
		now:      now,
		changed:  make(chan struct{}, 1),
		services: map[Name]*entry{},
		owners:   map[Name]Name{},
		dirty:    map[Name]time.Time{},
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

// DeleteNode forgets the own node's addresses; its name stays, for what runs
// on it still does.
func (s *Store) DeleteNode() {
	s.update(func() { s.putNode(Node{Name: s.node.Name}) })
}

// Replace makes the Store know exactly these services and slices and this
// node, in one step. Only what differs becomes a change.
func (s *Store) Replace(services []*Service, parts []*Slice, node Node) {
	s.update(func() {
		s.deleteOthers(services, parts)
		for _, svc := range services {
			s.putService(svc)
		}
		for _, sl := range parts {
			s.putSlice(sl)
		}
		s.putNode(node)
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

// MarkDirty makes the next Take contain these services, as if they had just
// changed. It does not signal Changed: its caller is the loop, which knows
// when it wants to try again.
func (s *Store) MarkDirty(names ...Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		s.touch(name)
	}
}

// MarkAllDirty makes the next Take contain the node and everything known. Like
// MarkDirty, it does not signal Changed.
func (s *Store) MarkAllDirty() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.services {
		s.touch(name)
	}
	s.nodeDirty = true
}

// Take returns what changed since the last Take; nothing before SetSynced.
// The caller must not modify what it gets.
func (s *Store) Take() Changes {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.synced {
		return Changes{}
	}
	c := Changes{Node: s.node, NodeChanged: s.nodeDirty}
	for _, name := range slices.SortedFunc(stdmaps.Keys(s.dirty), Name.Compare) {
		c.Services = append(c.Services, s.view(name))
	}
	clear(s.dirty)
	s.nodeDirty = false
	return c
}

func (s *Store) view(name Name) View {
	v := View{Name: name, Received: s.dirty[name]}
	if e := s.services[name]; e != nil && e.service != nil {
		v.Service = e.service
		v.Endpoints = merge(e.slices)
	}
	return v
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

// touch marks a service as changed; the oldest change counts.
func (s *Store) touch(name Name) {
	s.revision++
	if _, ok := s.dirty[name]; !ok {
		s.dirty[name] = s.now()
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
	s.touch(svc.Name)
}

func (s *Store) deleteService(name Name) {
	e := s.services[name]
	if e == nil || e.service == nil {
		return
	}
	e.service = nil
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
	s.touch(sl.Service)
}

func (s *Store) deleteSlice(key Name) {
	owner, ok := s.owners[key]
	if !ok {
		return
	}
	delete(s.owners, key)
	delete(s.services[owner].slices, key)
	s.forgetIfEmpty(owner)
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

// deleteOthers removes the services and slices that are not in these lists.
func (s *Store) deleteOthers(services []*Service, parts []*Slice) {
	known := make(map[Name]bool, len(services))
	for _, svc := range services {
		known[svc.Name] = true
	}
	for name := range s.services {
		if !known[name] {
			s.deleteService(name)
		}
	}
	keys := make(map[Name]bool, len(parts))
	for _, sl := range parts {
		keys[sl.Key] = true
	}
	for key := range s.owners {
		if !keys[key] {
			s.deleteSlice(key)
		}
	}
}
