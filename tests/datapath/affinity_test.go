package datapath

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/rig"
)

const stickyFor = 3 * time.Hour

// sticky is a service with affinity and several backends, and one client of it.
type sticky struct {
	*conversation
	addrs []netip.AddrPort
	id    maps.ServicePortID
	next  uint16
}

func newSticky(c *conversation) *sticky {
	c.t.Helper()
	s := &sticky{conversation: c, addrs: several(c, 4)}
	c.putService(func(v *maps.Service) { v.Affinity, s.id = stickyFor, v.ServicePort })
	return s
}

// dial begins a connection from another port and returns where it went.
func (s *sticky) dial() netip.Addr {
	s.t.Helper()
	s.next++
	in := s.spec(withPort(s.f.client, 42000+s.next), s.f.vip, opening(s.proto), "")
	got := s.run(s.hook, in)
	to := destination(got.Frame)
	if !slices.Contains(s.addrs, netip.AddrPortFrom(to, s.backend.Port())) {
		s.t.Fatalf("%s, and the frame went to %s, which is no backend", got.Verdict, to)
	}
	return to
}

// destination is the address a frame without tags is for.
func destination(frame []byte) netip.Addr {
	if frame[12] == 0x08 {
		return netip.AddrFrom4([4]byte(frame[30:34]))
	}
	return netip.AddrFrom16([16]byte(frame[38:54]))
}

func (s *sticky) key() maps.AffinityKey {
	return maps.AffinityKey{Client: s.f.client.Addr(), ServicePort: s.id}
}

// remembered is what the datapath remembers of the client.
func (s *sticky) remembered() maps.Affinity {
	s.t.Helper()
	var found *maps.Affinity
	err := s.r.Set.Affinity().Each(func(k maps.AffinityKey, a maps.Affinity) bool {
		if k == s.key() {
			found = &a
		}
		return true
	})
	if err != nil || found == nil {
		s.t.Fatalf("affinity of %v: %v, %v", s.key(), found, err)
	}
	return *found
}

// used makes the client's last connection begin that long ago.
func (s *sticky) used(ago time.Duration) {
	s.t.Helper()
	a := s.remembered()
	a.Used -= ago
	if err := s.r.Set.Affinity().Put(s.key(), a); err != nil {
		s.t.Fatal(err)
	}
}

// change edits the backend the client keeps.
func (s *sticky) change(edit func(*maps.Backend)) {
	s.t.Helper()
	id := s.remembered().Backend
	all, err := s.r.Set.Backends().All()
	if err != nil {
		s.t.Fatal(err)
	}
	b := all[id]
	edit(&b)
	if err := s.r.Set.Backends().Put(id, b); err != nil {
		s.t.Fatal(err)
	}
}

// stays dials often and wants the same backend each time.
func (s *sticky) stays(at netip.Addr) {
	s.t.Helper()
	for range 16 {
		if got := s.dial(); got != at {
			s.t.Fatalf("went to %s, want %s as before", got, at)
		}
	}
}

func everySticky(t *testing.T, fn func(s *sticky)) {
	t.Helper()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		fn(newSticky(newConversation(t, r, hook, f, proto, local)))
	})
}

func TestAClientKeepsItsBackend(t *testing.T) {
	t.Parallel()
	everySticky(t, func(s *sticky) { s.stays(s.dial()) })
}

// All frontends of a service port share it; another service port has its own.
func TestAffinityIsPerServicePortWhateverTheFrontend(t *testing.T) {
	t.Parallel()
	everySticky(t, func(s *sticky) {
		at := s.dial()
		all, err := s.r.Set.Frontends().All()
		if err != nil {
			s.t.Fatal(err)
		}
		second := withVIPPort(s.f, 8443)
		if err := s.r.Set.Frontends().Put(second.frontend(s.proto), all[s.f.frontend(s.proto)]); err != nil {
			s.t.Fatal(err)
		}
		s.f = second
		s.stays(at)
		other := newSticky(newConversation(s.t, s.r, s.hook, withVIPPort(s.f, 99), s.proto, s.local))
		other.dial()
		if other.remembered().Backend == s.remembered().Backend {
			s.t.Error("another service port has a backend of this one")
		}
	})
}

func TestEachNewConnectionRenewsAffinityUntilItExpires(t *testing.T) {
	t.Parallel()
	everySticky(t, func(s *sticky) {
		s.stays(s.dial())
		now := s.remembered().Used
		s.used(stickyFor - 10*time.Second)
		s.dial()
		if used := s.remembered().Used; used < now {
			s.t.Errorf("last used at %s, want at least %s", used, now)
		}
		s.used(stickyFor)
		moved := false
		for range 64 {
			before := s.remembered().Backend
			s.dial()
			moved = moved || s.remembered().Backend != before
			s.used(stickyFor)
		}
		if !moved {
			s.t.Error("an expired client came to the same backend 64 times")
		}
	})
}

func TestAClientLeavesABackendThatIsNoCandidateAnyMore(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*maps.Backend){
		"draining, others take over": func(b *maps.Backend) { b.State, b.InCluster, b.InLocal = maps.Draining, false, false },
		"gone":                       func(b *maps.Backend) { b.State = maps.Gone },
		"another one by now":         func(b *maps.Backend) { b.Generation++ },
		"of another service port":    func(b *maps.Backend) { b.ServicePort += 100 },
		"not for this policy":        func(b *maps.Backend) { b.InCluster = false },
	} {
		t.Run(name, func(t *testing.T) {
			everySticky(t, func(s *sticky) {
				s.dial()
				left := s.remembered()
				s.change(edit)
				s.without(left.Backend)
				s.dial()
				if got := s.remembered(); got.Backend == left.Backend {
					s.t.Errorf("the client still keeps backend %d", got.Backend)
				}
			})
		})
	}
}

// without takes a backend out of the table, as the agent does.
func (s *sticky) without(id maps.BackendID) {
	s.t.Helper()
	s.putService(func(v *maps.Service) {
		slots, err := s.r.Set.Slots().Read(v.Cluster)
		if err != nil {
			s.t.Fatal(err)
		}
		for i := range slots {
			if slots[i] == id {
				slots[i] = slots[(i+1)%len(slots)]
			}
		}
		if err := s.r.Set.Slots().Write(v.Cluster, slots); err != nil {
			s.t.Fatal(err)
		}
	})
}

// A terminating backend stands in where none is ready: it is a candidate.
func TestAClientStaysWithABackendThatStandsIn(t *testing.T) {
	t.Parallel()
	everySticky(t, func(s *sticky) {
		at := s.dial()
		s.change(func(b *maps.Backend) { b.State = maps.Draining })
		s.stays(at)
	})
}

func TestAClientThatMayNotComeInIsNotRemembered(t *testing.T) {
	t.Parallel()
	everySticky(t, func(s *sticky) {
		s.allow()
		s.wantVerdict(opening(s.proto), rig.Drop, maps.VerdictSourceRange)
		err := s.r.Set.Affinity().Each(func(k maps.AffinityKey, _ maps.Affinity) bool {
			s.t.Errorf("%v is remembered", k)
			return true
		})
		if err != nil {
			s.t.Fatal(err)
		}
	})
}
