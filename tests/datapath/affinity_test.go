package datapath

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
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

// dial begins a connection from another port, finishes its handshake, and returns
// where it went.
func (s *sticky) dial() netip.Addr {
	s.t.Helper()
	c := s.knock()
	c.reply(opening(s.proto)|packet.ACK, "")
	c.forward(packet.ACK, "")
	return c.backend.Addr()
}

// knock sends the first packet of a connection from another port only.
func (s *sticky) knock() *conversation {
	s.t.Helper()
	s.next++
	c := s.another(withPort(s.f.client, 42000+s.next))
	in := c.first()
	got := c.run(c.hook, in)
	c.backend = netip.AddrPortFrom(destination(got.Frame), s.backend.Port())
	if !slices.Contains(s.addrs, c.backend) {
		s.t.Fatalf("%s, and the frame went to %s, which is no backend", got.Verdict, c.backend)
	}
	if c.local {
		c.lent = binary.BigEndian.Uint16(got.Frame[in.L4():])
	} else {
		c.snat = sourcePort(c.t, got.Frame, in)
	}
	return c
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
		at := s.dial()
		s.stays(at)
		now := s.remembered().Used
		s.rotate()
		s.used(stickyFor - 10*time.Second)
		s.stays(at)
		if used := s.remembered().Used; used < now {
			s.t.Errorf("last used at %s, want at least %s", used, now)
		}
		s.used(stickyFor)
		moved := s.dial()
		if moved == at {
			s.t.Errorf("an expired client came to %s, where the table does not lead any more", at)
		}
		s.stays(moved)
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

// rotate makes the table lead every client to another backend.
func (s *sticky) rotate() {
	s.t.Helper()
	s.putService(func(v *maps.Service) {
		slots, err := s.r.Set.Slots().Read(v.Cluster)
		if err != nil {
			s.t.Fatal(err)
		}
		slots = append(slots[1:], slots[0])
		if err := s.r.Set.Slots().Write(v.Cluster, slots); err != nil {
			s.t.Fatal(err)
		}
	})
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

// The map is for clients that are there: whoever spoofs addresses fills it with
// nobody's.
func TestSpoofedFirstPacketsEvictNobodysAffinity(t *testing.T) {
	t.Parallel()
	everySticky(t, func(s *sticky) {
		at := s.dial()
		s.hear(s.f.crowd(many(5<<10)), said{flags: opening(s.proto)}, said{flags: packet.ACK, edit: blind})
		s.r.ResetFlows(s.t) // the crowd holds the ports
		err := s.r.Set.Affinity().Each(func(k maps.AffinityKey, _ maps.Affinity) bool {
			if k != s.key() {
				s.t.Errorf("%v is remembered", k)
			}
			return k == s.key()
		})
		if err != nil {
			s.t.Fatal(err)
		}
		s.stays(at)
	})
}

// The first packet says where; that it is kept says who goes on.
func TestAClientIsRememberedOnceItsConnectionIsEstablished(t *testing.T) {
	t.Parallel()
	everySticky(t, func(s *sticky) {
		c := s.knock()
		if n := s.affinities(); n != 0 {
			s.t.Errorf("%d clients are remembered before anybody has answered", n)
		}
		c.reply(opening(s.proto)|packet.ACK, "")
		if n := s.affinities(); n != 0 && s.proto != maps.UDP { // many datagrams are the only one
			s.t.Errorf("%d clients are remembered before the handshake is finished", n)
		}
		c.forward(packet.ACK, "")
		s.stays(c.backend.Addr())
	})
}

func (s *sticky) affinities() (n int) {
	s.t.Helper()
	err := s.r.Set.Affinity().Each(func(maps.AffinityKey, maps.Affinity) bool { n++; return true })
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// Connections of one client may come in by several nodes (ECMP), which do not know of
// each other: the first choice is by the client's address alone.
func TestNodesWithEqualTablesChooseAlike(t *testing.T) {
	t.Parallel()
	a, b := lend(t), lend(t)
	everyCase(t, a, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		b.Reset(t)
		before := f
		before.vip = withPort(f.vip, 8443)
		newConversation(t, b, hook, before, proto, local).serve() // so that numbers differ
		one, other := newSticky(newConversation(t, a, hook, f, proto, local)), newSticky(newConversation(t, b, hook, f, proto, local))
		other.next = 1000
		used := make(map[netip.Addr]bool)
		for range 16 {
			client := withAddr(one.f.client, one.f.client.Addr().Next())
			one.f.client, other.f.client = client, client
			at := one.knock().backend.Addr()
			used[at] = true
			if got := other.knock().backend.Addr(); got != at {
				t.Errorf("%s: one node sends to %s, another to %s", client.Addr(), at, got)
			}
		}
		if len(used) < 2 {
			t.Errorf("all clients went to %v", used)
		}
	})
}
