package datapath

import (
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// putService changes where the conversation's frontend leads.
func (c *conversation) putService(change func(*maps.Service)) {
	c.t.Helper()
	all, err := c.r.Set.Frontends().All()
	if err != nil {
		c.t.Fatal(err)
	}
	s := all[c.f.frontend(c.proto)]
	change(&s)
	if err := c.r.Set.Frontends().Put(c.f.frontend(c.proto), s); err != nil {
		c.t.Fatal(err)
	}
}

func TestAFrontendThatLeadsNowhereDropsNewFlows(t *testing.T) {
	t.Parallel()
	ways := map[string]func(c *conversation){
		"an empty table":                    func(c *conversation) { c.putService(func(s *maps.Service) { s.Cluster = maps.Table{} }) },
		"a backend that is gone":            func(c *conversation) { c.setState(maps.Gone) },
		"a backend that is forgotten":       func(c *conversation) { c.setState(maps.Free) },
		"a backend of another service port": func(c *conversation) { c.putBackend(func(b *maps.Backend) { b.ServicePort++ }) },
		"a table beyond the slots": func(c *conversation) {
			c.putService(func(s *maps.Service) { s.Cluster.Offset = c.r.Set.Slots().Capacity() })
		},
		"a backend beyond the backends": func(c *conversation) {
			c.putService(func(s *maps.Service) {
				err := c.r.Set.Slots().Write(s.Cluster, []maps.BackendID{maps.BackendID(c.r.Set.Backends().Capacity())})
				if err != nil {
					c.t.Fatal(err)
				}
			})
		},
	}
	r := lend(t)
	for name, spoil := range ways {
		t.Run(name, func(t *testing.T) {
			everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
				known := newConversation(t, r, hook, f, proto, local).serve()
				known.begin()
				spoil(known)
				later := newConversation(t, r, hook, withClient(f, 40002), proto, local)
				later.wantVerdict(opening(proto), rig.Drop, maps.VerdictNoBackend)
				later.wantVerdict(packet.ACK, rig.Drop, maps.VerdictNoBackend)
				later.wantNoForwardEntry()
				if proto != maps.UDP {
					known.goOn() // whatever became of the service
				}
			})
		})
	}
}

func TestOnlyExternalLocalUsesTheLocalTable(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for name, external := range map[string]bool{"cluster": false, "local": true} {
		t.Run(name, func(t *testing.T) {
			everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
				if hook == maps.HookPodIngress {
					return // TestAtItsLinkAPodIsNotBoundByTheExternalPolicy
				}
				// The table not in use names a backend of the other place.
				other := newConversation(t, r, hook, f, proto, !local)
				c := newConversation(t, r, hook, f, proto, local)
				c.serveWith(rig.Backend(c.backend.String(), local), rig.Backend(other.backend.String(), !local))
				c.putService(func(s *maps.Service) {
					first := maps.Table{Offset: s.Cluster.Offset, Length: 1}
					second := maps.Table{Offset: s.Cluster.Offset + 1, Length: 1}
					*s = maps.Service{ServicePort: s.ServicePort, Cluster: first, Local: second}
					if external {
						*s = maps.Service{ServicePort: s.ServicePort, Cluster: second, Local: first, ExternalLocal: true}
					}
				})
				c.begin()
				c.goOn()
				c.wantConnections(1, 0)
			})
		})
	}
}

func TestAnEmptyLocalTableDropsThoughTheClusterHasBackends(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if hook == maps.HookPodIngress {
			return // TestAtItsLinkAPodIsNotBoundByTheExternalPolicy
		}
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.putService(func(s *maps.Service) { s.ExternalLocal, s.Local = true, maps.Table{} })
		c.wantVerdict(opening(proto), rig.Drop, maps.VerdictNoBackend)
	})
}

// The table decides, by tuple: many clients reach every backend.
func TestClientsAreSpreadOverTheTable(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if !local {
			return
		}
		c := newConversation(t, r, hook, f, proto, true)
		addrs := several(c, 4)
		used := make(map[netip.AddrPort]int)
		for port := range uint16(64) {
			in := c.spec(withPort(f.client, 42000+port), f.vip, opening(proto), "")
			used[c.chosen(c.run(hook, in), in, addrs)]++
		}
		if len(used) != len(addrs) {
			t.Errorf("64 clients went to %v", used)
		}
	})
}
