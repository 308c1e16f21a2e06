package service

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var (
	web  = Name{"shop", "web"}
	db   = Name{"shop", "db"}
	http = PortKey{"http", TCP}
)

// clock is a clock that stands still until a test moves it.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

func newStore() (*Store, *clock) {
	c := &clock{t: time.Unix(1000, 0)}
	return NewStore(c.now), c
}

func aService(name Name, clusterIP string) *Service {
	return &Service{
		Name:       name,
		ClusterIPs: []netip.Addr{netip.MustParseAddr(clusterIP)},
		Ports:      []Port{{PortKey: http, Port: 80}},
	}
}

func aSlice(key string, svc Name, addrs ...string) *Slice {
	sl := &Slice{Key: Name{svc.Namespace, key}, Service: svc, Ports: []SlicePort{{http, 8080}}}
	for _, a := range addrs {
		sl.Endpoints = append(sl.Endpoints, SliceEndpoint{Addr: netip.MustParseAddr(a), Ready: true, Serving: true})
	}
	return sl
}

func names(c Changes) []string {
	var got []string
	for _, v := range c.Services {
		got = append(got, v.Name.String())
	}
	return got
}

func signalled(s *Store) bool {
	select {
	case <-s.Changed():
		return true
	default:
		return false
	}
}

func addrs(eps []Endpoint) []string {
	var got []string
	for _, ep := range eps {
		got = append(got, ep.Addr.String())
	}
	return got
}

// TestChanges plays updates on a store that is synced and was taken from.
func TestChanges(t *testing.T) {
	tests := []struct {
		name   string
		update func(*Store)
		want   []string
		node   bool
	}{
		{"an equal service is no change", func(s *Store) { s.PutService(aService(web, "10.0.0.1")) }, nil, false},
		{"an equal slice is no change", func(s *Store) { s.PutSlice(aSlice("web-1", web, "10.1.0.1")) }, nil, false},
		{"an equal node is no change", func(s *Store) { s.PutNode(Node{Name: "n1"}) }, nil, false},
		{"a changed service is dirty", func(s *Store) { s.PutService(aService(web, "10.0.0.9")) }, []string{"shop/web"}, false},
		{"a changed slice makes its service dirty, no other", func(s *Store) { s.PutSlice(aSlice("web-1", web, "10.1.0.2")) }, []string{"shop/web"}, false},
		{"a slice that moves makes both services dirty", func(s *Store) {
			sl := aSlice("web-1", db, "10.1.0.1")
			s.PutSlice(sl)
		}, []string{"shop/db", "shop/web"}, false},
		{"a deleted slice makes its service dirty", func(s *Store) { s.DeleteSlice(Name{"shop", "web-1"}) }, []string{"shop/web"}, false},
		{"a deleted service is dirty", func(s *Store) { s.DeleteService(db) }, []string{"shop/db"}, false},
		{"deleting what is unknown is no change", func(s *Store) {
			s.DeleteService(Name{"x", "y"})
			s.DeleteSlice(Name{"x", "y"})
		}, nil, false},
		{"a changed node is no change of services", func(s *Store) {
			s.PutNode(Node{Name: "n1", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
		}, nil, true},
		{"replacing everything by the same is no change", func(s *Store) {
			s.Replace(Content{Services: []*Service{aService(web, "10.0.0.1"), aService(db, "10.0.0.2")},
				Slices: []*Slice{aSlice("web-1", web, "10.1.0.1")}, Node: Node{Name: "n1"}})
		}, nil, false},
		{"replacing reports what differs", func(s *Store) {
			s.Replace(Content{Services: []*Service{aService(web, "10.0.0.1")},
				Slices: []*Slice{aSlice("web-2", web, "10.1.0.1")}, Node: Node{Name: "n2"}})
		}, []string{"shop/db", "shop/web"}, true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := newStore()
			s.PutService(aService(web, "10.0.0.1"))
			s.PutService(aService(db, "10.0.0.2"))
			s.PutSlice(aSlice("web-1", web, "10.1.0.1"))
			s.PutNode(Node{Name: "n1"})
			s.SetSynced()
			s.Take()
			signalled(s)

			tc.update(s)
			if got, want := signalled(s), tc.want != nil || tc.node; got != want {
				t.Errorf("signalled %v, want %v", got, want)
			}
			got := s.Take()
			if diff := cmp.Diff(tc.want, names(got)); diff != "" {
				t.Errorf("services (-want +got):\n%s", diff)
			}
			if got.NodeChanged != tc.node {
				t.Errorf("node changed %v, want %v", got.NodeChanged, tc.node)
			}
			if again := s.Take(); !again.Empty() {
				t.Errorf("second take is not empty: %v", again)
			}
		})
	}
}

func TestNothingIsHandedOutBeforeTheFirstSync(t *testing.T) {
	s, _ := newStore()
	s.PutService(aService(web, "10.0.0.1"))
	s.PutNode(Node{Name: "n1"})
	if signalled(s) || s.Synced() || !s.Take().Empty() {
		t.Fatal("an unsynced store handed something out")
	}
	s.SetSynced()
	if !signalled(s) || !s.Synced() {
		t.Fatal("no signal after sync")
	}
	got := s.Take()
	if diff := cmp.Diff([]string{"shop/web"}, names(got)); diff != "" {
		t.Error(diff)
	}
	if !got.NodeChanged || got.Node.Name != "n1" {
		t.Errorf("node = %v, changed %v", got.Node, got.NodeChanged)
	}
}

func TestAnEmptyClusterIsNewsToo(t *testing.T) {
	s, _ := newStore()
	s.SetSynced()
	if !signalled(s) {
		t.Error("no signal")
	}
	s.SetSynced()
	if signalled(s) {
		t.Error("second sync signalled again")
	}
}

func TestReceivedIsTheOldestUntakenChange(t *testing.T) {
	s, c := newStore()
	s.SetSynced()
	first := c.t
	s.PutService(aService(web, "10.0.0.1"))
	c.advance(time.Second)
	s.PutSlice(aSlice("web-1", web, "10.1.0.1"))
	if got := s.Take().Services[0].Received; !got.Equal(first) {
		t.Errorf("received %v, want %v", got, first)
	}
	c.advance(time.Second)
	s.DeleteSlice(Name{"shop", "web-1"})
	if got := s.Take().Services[0].Received; !got.Equal(c.t) {
		t.Errorf("after a take received %v, want %v", got, c.t)
	}
}

func TestMarkingDirtyRepeatsAViewWithoutWakingTheLoop(t *testing.T) {
	s, _ := newStore()
	s.PutService(aService(web, "10.0.0.1"))
	s.PutService(aService(db, "10.0.0.2"))
	s.SetSynced()
	s.Take()
	signalled(s)

	gone := Name{"shop", "gone"}
	s.MarkDirty(web, gone)
	s.PutService(aService(db, "10.0.0.2")) // equal: must not wake it either
	if signalled(s) {
		t.Error("MarkDirty signalled")
	}
	got := s.Take()
	if diff := cmp.Diff([]string{"shop/gone", "shop/web"}, names(got)); diff != "" {
		t.Error(diff)
	}
	if got.Services[0].Service != nil || got.Services[1].Service == nil {
		t.Errorf("views = %v", got.Services)
	}

	s.MarkAllDirty()
	got = s.Take()
	if diff := cmp.Diff([]string{"shop/db", "shop/web"}, names(got)); diff != "" || !got.NodeChanged {
		t.Errorf("all dirty: node changed %v, %s", got.NodeChanged, diff)
	}
}

func TestViewOfADeletedServiceHasNothingInIt(t *testing.T) {
	s, _ := newStore()
	s.PutService(aService(web, "10.0.0.1"))
	s.PutSlice(aSlice("web-1", web, "10.1.0.1"))
	s.SetSynced()
	if v := s.Take().Services[0]; v.Service == nil || len(v.Endpoints[http]) != 1 {
		t.Fatalf("view = %v", v)
	}
	s.DeleteService(web)
	if v := s.Take().Services[0]; v.Service != nil || v.Endpoints != nil {
		t.Errorf("view = %v", v)
	}
	s.PutService(aService(web, "10.0.0.1"))
	if v := s.Take().Services[0]; len(v.Endpoints[http]) != 1 {
		t.Errorf("the slice did not outlive its service: %v", v)
	}
}

// Node ports are on the node's addresses: deleting the object must not take them
// from pods that still run.
func TestDeletedNodeKeepsItsNameAndAddresses(t *testing.T) {
	s, _ := newStore()
	addr := netip.MustParseAddr("192.0.2.1")
	s.PutNode(Node{Name: "n1", Known: true, Addrs: []netip.Addr{addr}})
	s.SetSynced()
	s.Take()
	s.DeleteNode()
	got := s.Take()
	if !got.NodeChanged || got.Node.Name != "n1" || got.Node.Known || len(got.Node.Addrs) != 1 || got.Node.Addrs[0] != addr {
		t.Errorf("node = %+v, changed %v", got.Node, got.NodeChanged)
	}
}

func TestDeletedNodeIsStillInItsZone(t *testing.T) {
	s, _ := newStore()
	s.PutNode(Node{Name: "n1", Known: true, Zone: "a", PodCIDRs: prefixes("10.244.1.0/24"), Taints: []Taint{{Key: "down"}}})
	s.SetSynced()
	s.Take()
	s.DeleteNode()
	want := Node{Name: "n1", Zone: "a", PodCIDRs: prefixes("10.244.1.0/24")}
	if got := s.Take().Node; !got.Equal(want) {
		t.Errorf("node = %+v, want %+v", got, want)
	}
}

func TestTheStoreForgetsWhatIsDeleted(t *testing.T) {
	s, _ := newStore()
	s.PutService(aService(web, "10.0.0.1"))
	s.PutSlice(aSlice("web-1", web, "10.1.0.1"))
	s.DeleteService(web)
	s.DeleteSlice(Name{"shop", "web-1"})
	s.SetSynced()
	s.Take()
	if len(s.services)+len(s.owners)+len(s.dirty) != 0 {
		t.Errorf("left: %v %v %v", s.services, s.owners, s.dirty)
	}
}

func TestMerge(t *testing.T) {
	ep := func(addr, node string, terminating bool) SliceEndpoint {
		return SliceEndpoint{Addr: netip.MustParseAddr(addr), NodeName: node, Ready: !terminating, Serving: true, Terminating: terminating}
	}
	with := func(addr, node string, ready, serving, terminating bool) SliceEndpoint {
		return SliceEndpoint{Addr: netip.MustParseAddr(addr), NodeName: node, Ready: ready, Serving: serving, Terminating: terminating}
	}
	slice := func(key string, eps ...SliceEndpoint) *Slice {
		return &Slice{Key: Name{"shop", key}, Service: web, Ports: []SlicePort{{http, 80}}, Endpoints: eps}
	}
	tests := []struct {
		name  string
		parts []*Slice
		want  []Endpoint
	}{
		{"slices are joined and sorted by address, both families",
			[]*Slice{slice("b", ep("10.0.0.10", "n1", false)), slice("a", ep("fd00::1", "n1", false), ep("10.0.0.9", "n2", false))},
			[]Endpoint{
				{Addr: netip.MustParseAddrPort("10.0.0.9:80"), NodeName: "n2", Ready: true, Serving: true},
				{Addr: netip.MustParseAddrPort("10.0.0.10:80"), NodeName: "n1", Ready: true, Serving: true},
				{Addr: netip.MustParseAddrPort("[fd00::1]:80"), NodeName: "n1", Ready: true, Serving: true},
			}},
		{"not terminating wins over terminating, whichever comes first",
			[]*Slice{slice("a", ep("10.0.0.1", "old", true), ep("10.0.0.2", "new", false)), slice("b", ep("10.0.0.1", "new", false), ep("10.0.0.2", "old", true))},
			[]Endpoint{
				{Addr: netip.MustParseAddrPort("10.0.0.1:80"), NodeName: "new", Ready: true, Serving: true},
				{Addr: netip.MustParseAddrPort("10.0.0.2:80"), NodeName: "new", Ready: true, Serving: true},
			}},
		{"of two that are not terminating the smallest slice key wins",
			[]*Slice{slice("c", ep("10.0.0.1", "c", false)), slice("a", ep("10.0.0.1", "a", false)), slice("b", ep("10.0.0.1", "b", false))},
			[]Endpoint{{Addr: netip.MustParseAddrPort("10.0.0.1:80"), NodeName: "a", Ready: true, Serving: true}}},
		{"of two terminating ones the smallest slice key wins",
			[]*Slice{slice("b", ep("10.0.0.1", "b", true)), slice("a", ep("10.0.0.1", "a", true))},
			[]Endpoint{{Addr: netip.MustParseAddrPort("10.0.0.1:80"), NodeName: "a", Serving: true, Terminating: true}}},
		{"ready wins over not ready, whichever comes first",
			[]*Slice{slice("a", with("10.0.0.1", "unready", false, false, false), ep("10.0.0.2", "ready", false)),
				slice("b", ep("10.0.0.1", "ready", false), with("10.0.0.2", "unready", false, true, false))},
			[]Endpoint{
				{Addr: netip.MustParseAddrPort("10.0.0.1:80"), NodeName: "ready", Ready: true, Serving: true},
				{Addr: netip.MustParseAddrPort("10.0.0.2:80"), NodeName: "ready", Ready: true, Serving: true},
			}},
		{"of two terminating ones the one that serves wins, whichever comes first",
			[]*Slice{slice("a", with("10.0.0.1", "ended", false, false, true), ep("10.0.0.2", "serves", true)),
				slice("b", ep("10.0.0.1", "serves", true), with("10.0.0.2", "ended", false, false, true))},
			[]Endpoint{
				{Addr: netip.MustParseAddrPort("10.0.0.1:80"), NodeName: "serves", Serving: true, Terminating: true},
				{Addr: netip.MustParseAddrPort("10.0.0.2:80"), NodeName: "serves", Serving: true, Terminating: true},
			}},
		{"an address given to the next pod, which is not ready yet, is not that of the one before, published though it is",
			[]*Slice{slice("a", with("10.0.0.1", "old", true, true, true)), slice("b", with("10.0.0.1", "new", false, false, false))},
			[]Endpoint{{Addr: netip.MustParseAddrPort("10.0.0.1:80"), NodeName: "new"}}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := newStore()
			s.PutService(aService(web, "10.96.0.1"))
			for _, sl := range tc.parts {
				s.PutSlice(sl)
			}
			s.SetSynced()
			got := s.Take().Services[0].Endpoints
			if diff := cmp.Diff(map[PortKey][]Endpoint{http: tc.want}, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
				t.Errorf("endpoints (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPortsOfAServiceAreKeptApart(t *testing.T) {
	s, _ := newStore()
	s.PutService(aService(web, "10.96.0.1"))
	dnsTCP, dnsUDP := PortKey{"dns", TCP}, PortKey{"dns", UDP}
	sl := aSlice("web-1", web, "10.1.0.1")
	sl.Ports = []SlicePort{{dnsTCP, 53}, {dnsUDP, 5353}}
	s.PutSlice(sl)
	s.SetSynced()
	got := s.Take().Services[0].Endpoints
	want := map[PortKey][]string{dnsTCP: {"10.1.0.1:53"}, dnsUDP: {"10.1.0.1:5353"}}
	for key, w := range want {
		if diff := cmp.Diff(w, addrs(got[key])); diff != "" {
			t.Errorf("%v: %s", key, diff)
		}
	}
}

func TestConcurrentUseLosesNoChange(t *testing.T) {
	s := NewStore(time.Now)
	s.SetSynced()
	const writers, each = 4, 200
	seen := map[Name]bool{}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				s.PutService(&Service{Name: Name{string(rune('a' + w)), string(rune('A' + i))}})
			}
		})
	}
	go func() { wg.Wait(); close(done) }()
	collect := func() {
		for _, v := range s.Take().Services {
			seen[v.Name] = true
		}
	}
	for running := true; running; {
		select {
		case <-s.Changed():
			collect()
		case <-done:
			running = false
		}
	}
	collect()
	if len(seen) != writers*each {
		t.Errorf("saw %d services, want %d", len(seen), writers*each)
	}
}
