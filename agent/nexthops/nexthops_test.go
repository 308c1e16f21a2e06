package nexthops

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
)

// fake is a kernel and the maps of programs. A tick is a second. All of it is used
// by the Keeper's goroutines and, while those wait, by the test.
type fake struct {
	begin      time.Time
	state      maps.RouteState // what programs know
	puts       int
	inUse      map[maps.NextHop]maps.Neighbour
	neighbours []loader.Neighbour
	multipath  bool
	bySource   bool
	secured    bool
	refuse     error // what Neighbours says
	used       []maps.NextHop
	tell       func(loader.RouteNews)
	broken     chan error // ends the subscription
}

func (f *fake) Now() (uint32, error) {
	return 1_000_000 + uint32(time.Since(f.begin)/time.Second), nil
}

func (f *fake) Put(s maps.RouteState) error {
	f.state = s
	f.puts++
	return nil
}

func (f *fake) Each(fn func(maps.NextHop, maps.Neighbour) bool) error {
	for h, n := range f.inUse {
		if !fn(h, n) {
			break
		}
	}
	return nil
}

func (f *fake) Lookup(h maps.NextHop) (maps.Neighbour, bool, error) {
	n, ok := f.inUse[h]
	return n, ok, nil
}

func (f *fake) Watch(ctx context.Context, tell func(loader.RouteNews)) error {
	f.tell = tell
	tell(loader.RouteNews{})
	select {
	case err := <-f.broken:
		return err
	case <-ctx.Done():
		return nil
	}
}

func (f *fake) Neighbours() ([]loader.Neighbour, error) { return slices.Clone(f.neighbours), f.refuse }

func (f *fake) Use(h maps.NextHop) error {
	f.used = append(f.used, h)
	return nil
}

func (f *fake) AnyMultipath() (bool, error) { return f.multipath, nil }

func (f *fake) AnyBySource() (bool, error) { return f.bySource, nil }

// use makes programs have looked up a route by h just now.
func (f *fake) use(h maps.NextHop) {
	now, _ := f.Now()
	f.inUse[h] = maps.Neighbour{Used: now}
}

var (
	gateway = maps.NextHop{Ifindex: 2, Addr: netip.MustParseAddr("198.51.100.1")}
	idle    = maps.NextHop{Ifindex: 2, Addr: netip.MustParseAddr("198.51.100.7")}
)

const macA, macB = "02:00:00:00:00:0a", "02:00:00:00:00:0b"

func valid(h maps.NextHop, mac string) loader.Neighbour {
	return loader.Neighbour{NextHop: h, MAC: mac, Valid: true}
}

func stale(h maps.NextHop, mac string) loader.Neighbour {
	n := valid(h, mac)
	n.Stale = true
	return n
}

// run has a Keeper work on f while test runs, in a bubble of time.
func run(t *testing.T, f *fake, test func(t *testing.T, k *Keeper)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f.begin, f.inUse = time.Now(), make(map[maps.NextHop]maps.Neighbour)
		f.broken = make(chan error)
		f.use(gateway)
		k := New(Parts{Routes: f, InUse: f, Clock: f, Kernel: f, Secured: func() bool { return f.secured }, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		synctest.Wait()
		test(t, k)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if now, _ := f.Now(); int32(f.state.Until-now) >= 0 {
			t.Error("programs still rely on a Keeper that has ended")
		}
	})
}

// later lets d pass, and what happens then.
func later(d time.Duration) {
	time.Sleep(d) // of the bubble
	synctest.Wait()
}

func (f *fake) news(n loader.RouteNews) {
	f.tell(n)
	synctest.Wait()
}

func TestAStartMakesProgramsForgetWhatNobodyWatched(t *testing.T) {
	f := &fake{multipath: true}
	run(t, f, func(t *testing.T, _ *Keeper) {
		now, _ := f.Now()
		if want := (maps.RouteState{Changed: now + 1, Until: now + lease, Multipath: true}); f.state != want {
			t.Errorf("programs know %+v, want %+v", f.state, want)
		}
	})
}

func TestTheLeaseIsRenewedAndNothingElseChanges(t *testing.T) {
	f := &fake{neighbours: []loader.Neighbour{valid(gateway, macA)}}
	run(t, f, func(t *testing.T, _ *Keeper) {
		before := f.state
		later(10 * lease * time.Second)
		now, _ := f.Now()
		if f.state.Until < now+lease-3 || f.state.Changed != before.Changed {
			t.Errorf("after %+v programs know %+v in tick %d", before, f.state, now)
		}
	})
}

func TestNewsThatMakeFlowsLookTheirRoutesUpAgain(t *testing.T) {
	other := maps.NextHop{Ifindex: 3, Addr: gateway.Addr}
	gone := valid(gateway, macA)
	gone.Valid = false
	for _, tc := range []struct {
		name string
		news loader.RouteNews
		want bool
	}{
		{"a route", loader.RouteNews{Changed: true}, true},
		{"more than could be heard", loader.RouteNews{Lost: true}, true},
		{"another MAC", loader.RouteNews{Neighbours: []loader.Neighbour{valid(gateway, macB)}}, true},
		{"a neighbour that fails", loader.RouteNews{Neighbours: []loader.Neighbour{gone}}, true},
		{"the same MAC", loader.RouteNews{Neighbours: []loader.Neighbour{valid(gateway, macA)}}, false},
		{"the same MAC, stale", loader.RouteNews{Neighbours: []loader.Neighbour{stale(gateway, macA)}}, false},
		{"another MAC of a neighbour that is not in use", loader.RouteNews{Neighbours: []loader.Neighbour{valid(idle, macB)}}, false},
		{"another device", loader.RouteNews{Neighbours: []loader.Neighbour{valid(other, macB)}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fake{neighbours: []loader.Neighbour{valid(gateway, macA), valid(idle, macA)}}
			run(t, f, func(t *testing.T, _ *Keeper) {
				later(interval + 1500*time.Millisecond) // between two rounds
				before := f.state
				f.news(tc.news)
				now, _ := f.Now()
				if changed := f.state.Changed != before.Changed; changed != tc.want {
					t.Fatalf("before %+v, now %+v; want changed: %t", before, f.state, tc.want)
				}
				if tc.want && f.state.Changed != now+1 {
					t.Errorf("changed until %d, want %d", f.state.Changed, now+1)
				}
			})
		})
	}
}

// Two changes within a tick are one, but for what else they tell.
func TestARouteWithSeveralPathsIsToldOf(t *testing.T) {
	f := &fake{}
	run(t, f, func(t *testing.T, k *Keeper) {
		later(3 * time.Second)
		f.news(loader.RouteNews{Changed: true})
		if f.state.Multipath {
			t.Fatal("told too early")
		}
		f.news(loader.RouteNews{Changed: true, Multipath: true})
		if !f.state.Multipath {
			t.Fatal("not told")
		}
		puts := f.puts
		k.Changed()
		synctest.Wait()
		if f.puts != puts {
			t.Error("what programs know was written again")
		}
	})
}

func TestWhatNoEventTellsIsFoundInTheTable(t *testing.T) {
	for name, after := range map[string][]loader.Neighbour{"another MAC": {valid(gateway, macB)}, "gone": {}} {
		t.Run(name, func(t *testing.T) {
			f := &fake{neighbours: []loader.Neighbour{valid(gateway, macA)}}
			run(t, f, func(t *testing.T, _ *Keeper) {
				later(5 * time.Second)
				before := f.state
				f.neighbours = after
				later(interval)
				if f.state.Changed <= before.Changed {
					t.Errorf("programs know %+v as before", f.state)
				}
			})
		})
	}
}

func TestNeighboursInUseAreConfirmedOnceTheyAreStale(t *testing.T) {
	foreign := stale(gateway, macA)
	foreign.Foreign = true
	for _, tc := range []struct {
		name string
		n    loader.Neighbour
		want bool
	}{
		{"stale", stale(gateway, macA), true},
		{"reachable", valid(gateway, macA), false},
		{"kept by somebody else", foreign, false},
		{"not in use", stale(idle, macA), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fake{}
			run(t, f, func(t *testing.T, _ *Keeper) {
				f.news(loader.RouteNews{Neighbours: []loader.Neighbour{tc.n}})
				if got := len(f.used) == 1; got != tc.want {
					t.Errorf("by an event: used %v, want so: %t", f.used, tc.want)
				}
				f.used, f.neighbours = nil, []loader.Neighbour{tc.n}
				later(interval)
				if got := len(f.used) == 1; got != tc.want {
					t.Errorf("in a round: used %v, want so: %t", f.used, tc.want)
				}
			})
		})
	}
}

func TestANextHopThatIsNotUsedAnyMoreIsLeftAlone(t *testing.T) {
	f := &fake{neighbours: []loader.Neighbour{stale(gateway, macA)}}
	run(t, f, func(t *testing.T, _ *Keeper) {
		later((lately + 5) * time.Second)
		f.used = nil
		later(20 * time.Second)
		if len(f.used) > 0 {
			t.Errorf("used %d times", len(f.used))
		}
	})
}

// Programs then look after themselves. Afterwards they must not believe what they
// looked up in between.
func TestTheLeaseIsOverWhileNeighboursCannotBeKept(t *testing.T) {
	f := &fake{neighbours: []loader.Neighbour{valid(gateway, macA)}}
	run(t, f, func(t *testing.T, _ *Keeper) {
		f.refuse = errors.New("no buffer space available")
		later(2 * lease * time.Second)
		now, _ := f.Now()
		if f.state.Until >= now {
			t.Fatalf("in tick %d programs know %+v", now, f.state)
		}
		f.refuse = nil
		f.use(gateway)
		later(interval)
		if now, _ = f.Now(); f.state.Until < now || f.state.Changed < now {
			t.Errorf("in tick %d programs know %+v", now, f.state)
		}
	})
}

func TestASubscriptionThatBreaksIsMadeAgain(t *testing.T) {
	f := &fake{}
	run(t, f, func(t *testing.T, _ *Keeper) {
		later(time.Minute)
		f.broken <- errors.New("connection reset")
		synctest.Wait()
		if now, _ := f.Now(); f.state.Until >= now {
			t.Fatalf("in tick %d programs know %+v", now, f.state)
		}
		later(retry)
		if now, _ := f.Now(); f.state.Until < now || f.state.Changed < now {
			t.Errorf("in tick %d programs know %+v", now, f.state)
		}
	})
}
