package reconcile

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

func prefixes(text ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range text {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func TestASpanIsTheSmallestRangeThatContainsAll(t *testing.T) {
	for _, tc := range []struct {
		name   string
		add    []netip.Prefix
		v4, v6 string // as the programs are told
	}{
		{"nothing", nil, "0.0.0.0/32", "::/128"},
		{"one range", prefixes("10.96.0.0/12"), "10.96.0.0/12", "::/128"},
		{"a range and what is in it", prefixes("10.96.0.0/12", "10.96.0.10/32"), "10.96.0.0/12", "::/128"},
		{"what is in it first", prefixes("10.96.0.10/32", "10.96.0.0/12"), "10.96.0.0/12", "::/128"},
		{"neighbours", prefixes("10.96.0.0/16", "10.97.0.0/16"), "10.96.0.0/15", "::/128"},
		{"far apart", prefixes("10.96.0.0/12", "192.168.0.0/16"), "invalid Prefix", "::/128"},
		{"far apart, and more", prefixes("10.96.0.0/12", "192.168.0.0/16", "10.0.0.0/8"), "invalid Prefix", "::/128"},
		{"both families", prefixes("fd00:96::/108", "10.96.0.0/12", "fd00:97::1/128"), "10.96.0.0/12", "fd00:96::/31"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s span
			for _, p := range tc.add {
				s.widen(p)
			}
			v4, v6 := s.runtime()
			if v4.String() != tc.v4 || v6.String() != tc.v6 {
				t.Errorf("got %s and %s, want %s and %s", v4, v6, tc.v4, tc.v6)
			}
			if err := (maps.Runtime{Services4: v4, Services6: v6}).Validate(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRangesOfServicesAndTheirSpanAreInTheMaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, Config{})
		for _, tc := range []struct {
			name   string
			do     func()
			ranges []netip.Prefix
			span   netip.Prefix
		}{
			{"none", func() {}, nil, netip.MustParsePrefix("0.0.0.0/32")},
			{"the first", func() { r.store.PutServiceCIDR("kubernetes", prefixes("10.96.0.0/16")) },
				prefixes("10.96.0.0/16"), netip.MustParsePrefix("10.96.0.0/16")},
			{"another", func() { r.store.PutServiceCIDR("more", prefixes("10.97.0.0/16")) },
				prefixes("10.96.0.0/16", "10.97.0.0/16"), netip.MustParsePrefix("10.96.0.0/15")},
			{"a ClusterIP in one", func() { put(r.store, "a", "10.96.0.1") },
				prefixes("10.96.0.0/16", "10.97.0.0/16"), netip.MustParsePrefix("10.96.0.0/15")},
			{"a ClusterIP in none", func() { put(r.store, "b", "10.100.0.1") },
				prefixes("10.96.0.0/16", "10.97.0.0/16"), netip.MustParsePrefix("10.96.0.0/13")},
			{"one goes, ClusterIPs stay", func() { r.store.DeleteServiceCIDR("more") },
				prefixes("10.96.0.0/16"), netip.MustParsePrefix("10.96.0.0/13")},
			{"the ClusterIP goes", func() { r.store.DeleteService(service.Name{Namespace: "shop", Name: "b"}) },
				prefixes("10.96.0.0/16"), netip.MustParsePrefix("10.96.0.0/16")},
			{"the range is another", func() { r.store.PutServiceCIDR("kubernetes", prefixes("10.96.0.0/17")) },
				prefixes("10.96.0.0/17"), netip.MustParsePrefix("10.96.0.0/17")},
		} {
			tc.do()
			pass(time.Second)
			c, err := r.fake.Contents()
			if err != nil {
				t.Fatal(err)
			}
			want := map[netip.Prefix]struct{}{}
			for _, p := range tc.ranges {
				want[p] = struct{}{}
			}
			if diff := cmp.Diff(want, c.ServiceCIDRs, compareAddrs); diff != "" {
				t.Errorf("%s: ranges (-want +got):\n%s", tc.name, diff)
			}
			if c.Runtime.Services4 != tc.span {
				t.Errorf("%s: span %s, want %s", tc.name, c.Runtime.Services4, tc.span)
			}
		}
	})
}

func TestARestartKeepsTheSpan(t *testing.T) {
	fake, store := newFake(), service.NewStore(time.Now)
	put(store, "a", "10.96.0.1")
	store.PutServiceCIDR("kubernetes", prefixes("10.96.0.0/16", "fd00:96::/112"))
	store.SetSynced()
	for i := range 2 {
		before := fake.Writes()
		l := newTestLoop(t, fake, store)
		l.parts.Attach = func(NodeNet) error { return nil }
		store.MarkAllDirty()
		l.step()
		if n := fake.Writes() - before; i > 0 && n != 0 {
			t.Errorf("%d writes after a restart, want none", n)
		}
	}
	rt, err := fake.Runtime().Get()
	if want := netip.MustParsePrefix("fd00:96::/112"); err != nil || rt.Services6 != want {
		t.Errorf("span %s, error %v, want %s", rt.Services6, err, want)
	}
}

func TestRangesThatCannotBeWrittenAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, Config{})
		r.fake.FailNext(1, errRefused)
		r.store.PutServiceCIDR("kubernetes", prefixes("10.96.0.0/16"))
		synctest.Wait()
		if all, err := r.fake.ServiceCIDRs().All(); err != nil || len(all) != 0 {
			t.Errorf("ranges %v, error %v before anything was written", all, err)
		}
		pass(retryFirst)
		if all, err := r.fake.ServiceCIDRs().All(); err != nil || len(all) != 1 {
			t.Errorf("ranges %v, error %v, want one", all, err)
		}
	})
}

// A span that could not be written is not believed to be.
func TestASpanThatCannotBeWrittenIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, Config{})
		r.runtime.refuse.Store(true)
		put(r.store, "a", "10.96.0.1")
		synctest.Wait()
		if len(frontends(t, r.fake)) != 1 {
			t.Error("the service waits for the span")
		}
		r.runtime.refuse.Store(false)
		pass(retryFirst)
		rt, err := r.fake.Runtime().Get()
		if want := netip.MustParsePrefix("10.96.0.1/32"); err != nil || rt.Services4 != want {
			t.Errorf("span %s, error %v, want %s", rt.Services4, err, want)
		}
	})
}
