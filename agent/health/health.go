// Package health is what external balancers and the kubelet are told (kube-proxy's
// pkg/proxy/healthcheck). It knows what was last synced and what is attached
// because it is told; it never asks the API server. It deliberately knows neither
// sockets nor processes: package responder has those.
package health

import (
	"cmp"
	stdmaps "maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ebb-lb/ebb/agent/drain"
	"github.com/ebb-lb/ebb/agent/endpoints"
	"github.com/ebb-lb/ebb/agent/service"
)

// State is the health of one agent. The zero State is not ready. It is safe
// for concurrent use; its exported fields are set before.
type State struct {
	// Timeout is how long an update may wait to be applied before the agent
	// counts as unhealthy (kube-proxy: twice the sync period, 60 s).
	Timeout time.Duration
	// Now is the clock, usually time.Now.
	Now func() time.Time
	// Complete, if not nil, returns when a sync last left nothing to do, also
	// one of an agent before this one; zero if none is known. Until this agent
	// has synced, what is pinned is as old as that.
	Complete func() time.Time
	// Rules say when the node is drained, DrainServices that this also fails
	// the probes of health check node ports.
	Rules         drain.Rules
	DrainServices bool
	// ChosenAddrs: health check node ports are on the addresses that accept node
	// ports only, and not on all the machine has.
	ChosenAddrs bool
	// Connections returns the live connections of each service; nil, as its
	// result: not known.
	Connections func() map[service.Name]int
	// Notify is called after each change, and must not block; it may be nil.
	Notify func()

	mu       sync.Mutex
	synced   time.Time // end of the last complete sync
	pending  time.Time // oldest update not yet applied
	attached error
	verified bool
	unserved []string // uplinks, and why
	warnings map[string]string
	closing  bool
	node     service.Node
	addrs    []netip.Addr // that accept node ports
	services map[service.Name]Service
}

// change changes s and tells.
func (s *State) change(f func()) {
	s.mu.Lock()
	f()
	s.mu.Unlock()
	if s.Notify != nil {
		s.Notify()
	}
}

// Pending notes that an update received at t is not applied yet.
func (s *State) Pending(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending.IsZero() {
		s.pending = t
	}
}

// Attached notes the last verification of the attachments; nil: all are there.
func (s *State) Attached(err error) {
	s.change(func() { s.attached, s.verified = err, true })
}

// Unserved notes which uplinks are not completely served, and why. That alone does
// not make the agent unhealthy: clients may come in by others.
func (s *State) Unserved(why map[string]string) {
	var list []string
	for _, name := range slices.Sorted(stdmaps.Keys(why)) {
		list = append(list, name+": "+why[name])
	}
	s.mu.Lock()
	same := slices.Equal(s.unserved, list)
	s.mu.Unlock()
	if !same { // it is said with every look at devices
		s.change(func() { s.unserved = list })
	}
}

// Warn notes what is wrong about something without keeping traffic from being
// served; an empty problem takes that back. It reports whether that is news.
func (s *State) Warn(about, problem string) bool {
	s.mu.Lock()
	same := s.warnings[about] == problem
	s.mu.Unlock()
	if same {
		return false
	}
	s.change(func() {
		if s.warnings == nil {
			s.warnings = make(map[string]string)
		}
		if s.warnings[about] = problem; problem == "" {
			delete(s.warnings, about)
		}
	})
	return true
}

// Closing makes every answer 503 from now on.
func (s *State) Closing() { s.change(func() { s.closing = true }) }

// Node notes what the cluster says of the node. It does not wait for a sync: a
// node can be drained while nothing can be written.
func (s *State) Node(n service.Node) { s.change(func() { s.node = n }) }

// Applied is what a sync has brought into the maps.
type Applied struct {
	NodeName string
	// NodePortAddrs are the node's addresses that accept node ports.
	NodePortAddrs []netip.Addr
	Services      []service.View
	// Full: there are no services but these.
	Full bool
}

// Synced notes that everything received is in the maps, and what that is. It is
// one step: whoever was told of the sync without its services would close their
// sockets.
func (s *State) Synced(a Applied) {
	s.change(func() {
		s.synced, s.pending = s.Now(), time.Time{}
		s.addrs = a.NodePortAddrs
		if a.Full || s.services == nil {
			s.services = make(map[service.Name]Service)
		}
		for _, v := range a.Services {
			if v.Service == nil || v.Service.HealthCheckNodePort == 0 {
				delete(s.services, v.Name)
				continue
			}
			s.services[v.Name] = serviceOf(v, a.NodeName)
		}
	})
}

func serviceOf(v service.View, nodeName string) Service {
	return Service{
		Name: v.Name, Port: v.Service.HealthCheckNodePort,
		Endpoints: map[Family]endpoints.LocalCount{
			IPv4: endpoints.CountLocal(v.Endpoints, nodeName, true),
			IPv6: endpoints.CountLocal(v.Endpoints, nodeName, false),
		},
	}
}

// View returns what is known now; certain is false as long as the agent has not
// found out whether it is healthy: then whoever knows an earlier answer may give it.
func (s *State) View() (v View, certain bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.Node, v.Unsynced = s.nodeView(), s.synced.IsZero()
	v.Listen = s.listen(v.Node.Families)
	live := s.connections()
	if live != nil {
		sum := 0
		for _, n := range live {
			sum += n
		}
		v.Node.Connections = &sum
	}
	for _, svc := range s.services {
		if live != nil {
			n := live[svc.Name]
			svc.Connections = &n
		}
		v.Services = append(v.Services, svc)
	}
	slices.SortFunc(v.Services, func(a, b Service) int { return a.Name.Compare(b.Name) })
	known := s.verified && (s.attached != nil || !s.synced.IsZero())
	return v, known || s.closing
}

func (s *State) connections() map[service.Name]int {
	if s.Connections == nil {
		return nil
	}
	return s.Connections()
}

func (s *State) nodeView() Node {
	reason := s.unhealthy()
	drained, isDrained := s.Rules.Check(s.node)
	n := Node{
		Synced: s.synced, Healthy: reason == "", Reason: reason,
		Eligible: !isDrained, Drained: drained, DrainServices: s.DrainServices,
		Families: families(s.node.Addrs), Unserved: s.unserved, Warnings: s.warningList(),
	}
	if s.Complete != nil {
		n.Complete = s.Complete()
	}
	return n
}

func (s *State) warningList() (list []string) {
	for _, about := range slices.Sorted(stdmaps.Keys(s.warnings)) {
		list = append(list, about+": "+s.warnings[about])
	}
	return list
}

// unhealthy returns why the agent is not healthy.
func (s *State) unhealthy() string {
	switch {
	case s.closing:
		return "shutting down"
	case s.verified && s.attached != nil:
		return s.attached.Error()
	case s.synced.IsZero():
		return "no complete sync yet"
	case !s.verified:
		return "attachments not verified yet"
	case !s.pending.IsZero() && s.Now().Sub(s.pending) > s.Timeout:
		return "an update has waited too long to be applied"
	}
	return ""
}

// listen returns the addresses health check node ports are on.
func (s *State) listen(families []Family) []netip.Addr {
	if s.ChosenAddrs {
		return s.addrs
	}
	var all []netip.Addr
	for _, f := range families {
		all = append(all, f.any())
	}
	return all
}

// families returns those the node has addresses of: no other is served. Without
// any address it may be either.
func families(addrs []netip.Addr) []Family {
	var all []Family
	for _, a := range addrs {
		if f := FamilyOf(a); !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	if len(all) == 0 {
		return []Family{IPv4, IPv6}
	}
	slices.SortFunc(all, func(a, b Family) int { return cmp.Compare(a, b) })
	return all
}
