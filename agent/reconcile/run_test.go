package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/health"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/maps/mapstest"
)

var errRefused = errors.New("refused on demand")

// running is a Loop that runs in a synctest bubble, on maps in memory.
type running struct {
	*Loop
	t        *testing.T
	fake     *mapstest.Fake
	store    *service.Store
	runtime  *runtimeValues
	health   *health.State
	attaches []time.Time
	attached NodeNet // what the last one was told
	refuse   error   // what the next ones return
}

// run starts a Loop until the test ends; its store is empty and synced.
func run(t *testing.T, cfg Config) *running {
	t.Helper()
	r := &running{
		t: t, fake: newFake(), store: service.NewStore(time.Now),
		health: &health.State{Timeout: time.Minute, Now: time.Now},
	}
	r.runtime = &runtimeValues{RuntimeValues: r.fake.Runtime()}
	r.Loop = newTestLoop(t, r.fake, r.store)
	r.cfg.NodeAddrs, r.cfg.NodePorts, r.cfg.MinInterval = cfg.NodeAddrs, cfg.NodePorts, cfg.MinInterval
	r.cfg.PodCIDRs = cfg.PodCIDRs
	r.parts.Health, r.parts.Runtime, r.parts.Attach = r.health, r.runtime, r.attachTo
	r.parts.Log = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	r.store.SetSynced()
	synctest.Wait()
	return r
}

func (r *running) attachTo(n NodeNet) error {
	r.attaches, r.attached = append(r.attaches, time.Now()), n
	return r.refuse
}

// pass lets time pass in the bubble.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *running) wantHealth(when string, want int) {
	r.t.Helper()
	w := httptest.NewRecorder()
	r.health.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
	if w.Code != want {
		r.t.Errorf("%s: status %d, want %d: %s", when, w.Code, want, w.Body)
	}
}

func addrs(text ...string) []netip.Addr {
	var all []netip.Addr
	for _, a := range text {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

// snats are the runtime values of a node with these addresses.
func snats(v4, v6 netip.Addr) maps.Runtime { return maps.Runtime{SNAT4: v4, SNAT6: v6} }

var compareAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestDevicesThatChangeAreAttachedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, Config{})
		r.wantHealth("attached", http.StatusOK)
		r.refuse = errRefused
		r.DevicesChanged()
		r.DevicesChanged() // one more changes nothing: attaching looks at all of them
		synctest.Wait()
		r.wantHealth("not attached", http.StatusServiceUnavailable)
		r.refuse = nil
		r.DevicesChanged()
		pass(time.Second)
		r.wantHealth("attached again", http.StatusOK)
		if len(r.attaches) > 4 {
			t.Errorf("attached %d times, at most 4 were asked for", len(r.attaches))
		}
	})
}

func TestNodePortsAreOnTheChosenAddresses(t *testing.T) {
	node := service.Node{Name: "n1", Addrs: addrs("192.0.2.1", "198.51.100.1", "2001:db8::1")}
	for _, tc := range []struct {
		name  string
		cfg   Config
		ports []netip.Addr // node ports are on them
		snat  maps.Runtime
		node  []netip.Addr
	}{
		{"the node's primary ones", Config{}, addrs("192.0.2.1", "2001:db8::1"), snats(node.Addrs[0], node.Addrs[2]), node.Addrs},
		{"all of the node's", Config{NodePorts: service.NodePortAddrs{All: true}}, node.Addrs, snats(node.Addrs[0], node.Addrs[2]), node.Addrs},
		{"those in the ranges given", Config{NodePorts: service.NodePortAddrs{CIDRs: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}},
			node.Addrs[1:], snats(node.Addrs[0], node.Addrs[2]), node.Addrs},
		{"those given instead of the node's", Config{NodeAddrs: addrs("203.0.113.9")},
			addrs("203.0.113.9"), snats(netip.MustParseAddr("203.0.113.9"), netip.Addr{}), addrs("203.0.113.9")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := run(t, tc.cfg)
				r.store.PutService(&service.Service{
					Name:       service.Name{Namespace: "shop", Name: "web"},
					ClusterIPs: addrs("10.96.0.1", "fd00:96::1"),
					Ports:      []service.Port{{PortKey: service.PortKey{Proto: service.TCP}, Port: 80, NodePort: 30080}},
				})
				r.store.PutNode(node)
				pass(time.Second)
				var got []netip.Addr
				for f := range frontends(t, r.fake) {
					if f.Port == 30080 {
						got = append(got, f.Addr)
					}
				}
				slices.SortFunc(got, netip.Addr.Compare)
				if diff := cmp.Diff(tc.ports, got, compareAddrs); diff != "" {
					t.Errorf("node ports (-want +got):\n%s", diff)
				}
				runtime, err := r.fake.Runtime().Get()
				runtime.Services4, runtime.Services6 = netip.Prefix{}, netip.Prefix{}
				if diff := cmp.Diff(tc.snat, runtime, compareAddrs); diff != "" || err != nil {
					t.Errorf("source of flows to other nodes (-want +got), error %v:\n%s", err, diff)
				}
				if diff := cmp.Diff(tc.node, r.attached.Addrs, compareAddrs); diff != "" {
					t.Errorf("attached on a node with addresses (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestAnotherZoneIsReasonToChooseAgainForAllServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, Config{})
		put(r.store, "a", "10.96.0.1")
		r.store.PutSlice(&service.Slice{
			Key: service.Name{Namespace: "shop", Name: "a-1"}, Service: service.Name{Namespace: "shop", Name: "a"},
			Ports: []service.SlicePort{{PortKey: service.PortKey{Proto: service.TCP}, Port: 80}},
			Endpoints: []service.SliceEndpoint{
				{Addr: netip.MustParseAddr("10.1.0.1"), Ready: true, Serving: true, ZoneHints: service.NewNameSet("east")},
				{Addr: netip.MustParseAddr("10.1.0.2"), Ready: true, Serving: true, ZoneHints: service.NewNameSet("west")},
			},
		})
		for _, tc := range []struct {
			zone string
			want []netip.Addr
		}{{"east", addrs("10.1.0.1")}, {"west", addrs("10.1.0.2")}, {"", addrs("10.1.0.1", "10.1.0.2")}} {
			r.store.PutNode(service.Node{Name: "n1", Zone: tc.zone})
			pass(time.Second)
			if diff := cmp.Diff(tc.want, r.candidates("10.96.0.1"), compareAddrs); diff != "" {
				t.Errorf("zone %q: candidates (-want +got):\n%s", tc.zone, diff)
			}
		}
	})
}

// Sockets are told of pods what their ranges have in common with source ranges.
func TestSourceRangesAreComparedWithWherePodsAre(t *testing.T) {
	const in, out = "10.0.0.0/8 fd00::/8", "192.0.2.0/24 2001:db8::/32"
	synctest.Test(t, func(t *testing.T) {
		r := run(t, Config{PodCIDRs: func(n service.Node) []netip.Prefix { return n.PodCIDRs }})
		for _, tc := range []struct {
			name, pods, ranges string
			in4, out4          bool
			in6, out6          bool
		}{
			{"no pods", "", in, false, false, false, false},
			{"all in one", "10.244.1.0/24 fd00:244::/64", in, true, false, true, false},
			{"the very range", "10.0.0.0/8 fd00::/8", in, true, false, true, false},
			{"none", "10.244.1.0/24 fd00:244::/64", out, false, true, false, true},
			{"families differ", "10.244.1.0/24 fd00:244::/64", "10.0.0.0/8 2001:db8::/32", true, false, false, true},
			{"one family", "fd00:244::/64", in, false, false, true, false},
			{"some pods", "10.244.1.0/24 172.16.0.0/12", in, false, false, false, false},
			{"a part of the pods", "10.0.0.0/7 fc00::/7", in, false, false, false, false},
			{"among others", "10.244.1.0/24 fd00:244::/64", out + " " + in, true, false, true, false},
		} {
			r.store.PutNode(service.Node{Name: "n1", PodCIDRs: prefixes(strings.Fields(tc.pods)...)})
			r.store.PutService(&service.Service{
				Name: service.Name{Namespace: "shop", Name: "a"}, ClusterIPs: addrs("10.96.0.1", "fd00:96::1"),
				LoadBalancerIPs: addrs("203.0.113.1", "2001:db8:113::1"), LoadBalancerSourceRanges: prefixes(strings.Fields(tc.ranges)...),
				ExternalIPs: addrs("203.0.113.2"),
				Ports:       []service.Port{{PortKey: service.PortKey{Proto: service.TCP}, Port: 80}},
			})
			pass(time.Second)
			for addr, want := range map[string][3]bool{
				"203.0.113.1": {true, tc.in4, tc.out4}, "2001:db8:113::1": {true, tc.in6, tc.out6},
				"203.0.113.2": {}, "10.96.0.1": {},
			} {
				s := frontends(t, r.fake)[maps.Frontend{Addr: netip.MustParseAddr(addr), Port: 80, Proto: maps.TCP}]
				if got := [3]bool{s.Restricted, s.PodsIn, s.PodsOut}; got != want {
					t.Errorf("%s: %s is restricted, pods in, pods out %v, want %v", tc.name, addr, got, want)
				}
			}
		}
		// The pods' ranges alone change.
		r.store.PutNode(service.Node{Name: "n1", PodCIDRs: prefixes("172.16.0.0/12")})
		pass(time.Second)
		s := frontends(t, r.fake)[maps.Frontend{Addr: netip.MustParseAddr("203.0.113.1"), Port: 80, Proto: maps.TCP}]
		if s.PodsIn || !s.PodsOut {
			t.Errorf("pods have moved out of the ranges, but the frontend is %+v", s)
		}
	})
}

// Sockets must not leave a frontend to pods' links that have no programs.
func TestPodsLinksAreNeededFromBeforeUntilAfterServicesAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, Config{})
		byPacket := func() (n int) {
			for _, s := range frontends(t, r.fake) {
				if s.Packet {
					n++
				}
			}
			return n
		}
		var needed []bool // and whether there was a frontend then
		r.parts.PodLinks = func(need bool) { needed = append(needed, need, byPacket() > 0) }
		put := func(name, ip string, packet bool) {
			r.store.PutService(&service.Service{
				Name: service.Name{Namespace: "shop", Name: name}, ClusterIPs: addrs(ip), ByPacket: packet,
				Ports: []service.Port{{PortKey: service.PortKey{Proto: service.TCP}, Port: 80}},
			})
			pass(time.Second)
		}
		for _, step := range []struct {
			name string
			do   func()
			want []bool
		}{
			{"an ordinary service", func() { put("a", "10.96.0.1", false) }, []bool{false, false}},
			{"one in packet mode", func() { put("b", "10.96.0.2", true) }, []bool{true, false}},
			{"another one", func() { put("c", "10.96.0.3", true) }, []bool{true, true}},
			{"the first is so no more", func() { put("b", "10.96.0.2", false) }, []bool{true, true}},
			{"the other is deleted", func() {
				r.store.DeleteService(service.Name{Namespace: "shop", Name: "c"})
				pass(time.Second)
			}, []bool{false, false}},
		} {
			needed = nil
			step.do()
			if d := cmp.Diff(step.want, needed); d != "" {
				t.Errorf("%s: %s", step.name, d)
			}
		}
	})
}

// candidates returns the backends the frontend on port 80 of a ClusterIP leads to.
func (r *running) candidates(clusterIP string) []netip.Addr {
	r.t.Helper()
	c, err := r.fake.Contents()
	if err != nil {
		r.t.Fatal(err)
	}
	v := c.Frontends[maps.Frontend{Addr: netip.MustParseAddr(clusterIP), Port: 80, Proto: maps.TCP}]
	var all []netip.Addr
	for _, id := range c.Tables[v.Cluster] {
		all = append(all, c.Backends[id].Addr.Addr())
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// runtimeValues can be told to refuse writes, and notes when one was tried.
type runtimeValues struct {
	mapstest.RuntimeValues
	refuse atomic.Bool
	tries  []time.Time
}

func (v *runtimeValues) Put(r maps.Runtime) error {
	v.tries = append(v.tries, time.Now())
	if v.refuse.Load() {
		return errRefused
	}
	return v.RuntimeValues.Put(r)
}

func TestWhatFailsIsTriedAgainLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, Config{})
		r.runtime.tries = nil // of the first sync
		r.runtime.refuse.Store(true)
		r.store.PutNode(service.Node{Name: "n1", Addrs: addrs("192.0.2.1")})
		pass(90 * time.Second)
		var waits []time.Duration
		for i := range len(r.runtime.tries) - 1 {
			waits = append(waits, r.runtime.tries[i+1].Sub(r.runtime.tries[i]))
		}
		want := []time.Duration{retryFirst, 2 * retryFirst, 4 * retryFirst, 8 * retryFirst, 16 * retryFirst, 32 * retryFirst, retryMost}
		if diff := cmp.Diff(want, waits); diff != "" {
			t.Errorf("waits (-want +got):\n%s", diff)
		}
		r.wantHealth("an update has waited for 90 s", http.StatusServiceUnavailable)
		r.runtime.refuse.Store(false)
		pass(retryMost)
		r.wantHealth("written at last", http.StatusOK)
	})
}

// A burst of changes is one sync at once, and one with all the rest.
func TestABurstIsGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 100 * time.Millisecond
		r := run(t, Config{MinInterval: interval})
		pass(time.Second)
		put(r.store, "a", "10.96.0.1")
		synctest.Wait()
		if got := len(frontends(t, r.fake)); got != 1 {
			t.Errorf("%d frontends at once, want 1: an idle loop does not wait", got)
		}
		put(r.store, "b", "10.96.0.2")
		put(r.store, "c", "10.96.0.3")
		pass(interval - time.Millisecond)
		if got := len(frontends(t, r.fake)); got != 1 {
			t.Errorf("%d frontends within the interval, want still 1", got)
		}
		pass(2 * time.Millisecond)
		if got := len(frontends(t, r.fake)); got != 3 {
			t.Errorf("%d frontends after it, want 3", got)
		}
	})
}

func TestNothingIsWrittenBeforeTheSourceIsComplete(t *testing.T) {
	fake, store := newFake(), service.NewStore(time.Now)
	l := newTestLoop(t, fake, store)
	l.parts.Health = &health.State{Timeout: time.Minute, Now: time.Now}
	l.parts.Runtime, l.parts.Attach = fake.Runtime(), func(NodeNet) error { return nil }
	put(store, "a", "10.96.0.1")
	l.step()
	if got := fake.Writes(); got != 0 {
		t.Errorf("%d writes before the first list is complete", got)
	}
	store.SetSynced()
	l.step()
	if got := len(frontends(t, fake)); got != 1 {
		t.Errorf("%d frontends, want 1", got)
	}
}

// What balancers are told of a service follows what is in the maps.
func TestHealthCheckNodePortsFollowTheMaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, Config{NodeAddrs: addrs("192.0.2.1")})
		probed := func() []service.Name {
			v, _ := r.health.View()
			var names []service.Name
			for _, s := range v.Services {
				names = append(names, s.Name)
			}
			return names
		}
		name := service.Name{Namespace: "shop", Name: "web"}
		r.fake.FailNext(1, errRefused)
		r.store.PutService(&service.Service{
			Name: name, ClusterIPs: addrs("10.96.0.1"), HealthCheckNodePort: 32000,
			Ports: []service.Port{{PortKey: service.PortKey{Proto: service.TCP}, Port: 80}},
		})
		synctest.Wait()
		if got := probed(); len(got) > 0 {
			t.Errorf("%v is told of before it is in the maps", got)
		}
		pass(retryFirst)
		if got := probed(); !slices.Equal(got, []service.Name{name}) {
			t.Errorf("told of %v, want %v", got, name)
		}
		// A service whose deletion comes with a failure is not in the full sync after it.
		r.fake.FailNext(1, errRefused)
		r.store.DeleteService(name)
		synctest.Wait()
		pass(retryMost)
		if got := probed(); len(got) > 0 {
			t.Errorf("%v is told of after it was deleted", got)
		}
	})
}

// A node can be drained while nothing can be written.
func TestTheNodeIsHeardOfAlsoWhenASyncFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, Config{})
		r.health.Rules.NeedObject = true
		r.runtime.refuse.Store(true)
		r.store.PutNode(service.Node{Name: "n1", Known: true, Addrs: addrs("192.0.2.1")})
		synctest.Wait()
		if v, _ := r.health.View(); !v.Node.Eligible {
			t.Errorf("a known node: %+v", v.Node)
		}
		r.store.DeleteNode()
		pass(retryMost)
		if v, _ := r.health.View(); v.Node.Eligible {
			t.Errorf("a deleted node: %+v", v.Node)
		}
	})
}
