package service

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// triggered is a slice of svc that differs from others by its address.
func triggered(svc Name, addr string, at time.Time) *Slice {
	sl := aSlice("web-1", svc, addr)
	sl.Triggered = at
	return sl
}

func TestTriggeredIsTheOldestUntakenChangeOfEndpoints(t *testing.T) {
	s, c := newStore()
	s.SetSynced()
	start := c.t
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	tests := []struct {
		name   string
		update func()
		want   time.Time
	}{
		{"nobody said when", func() { s.PutService(aService(web, "10.0.0.1")) }, time.Time{}},
		{"the oldest of several counts, whatever came first", func() {
			s.PutSlice(triggered(web, "10.1.0.1", at(3)))
			s.PutSlice(triggered(web, "10.1.0.2", at(2)))
			s.PutSlice(triggered(web, "10.1.0.3", at(4)))
		}, at(2)},
		{"what was taken is not counted again", func() { s.PutService(aService(web, "10.0.0.2")) }, time.Time{}},
		{"what was triggered before the start does not count", func() { s.PutSlice(triggered(web, "10.1.0.4", start)) }, time.Time{}},
		{"an equal slice triggers nothing, whatever it says", func() {
			s.PutService(aService(web, "10.0.0.3"))
			s.PutSlice(triggered(web, "10.1.0.4", at(9)))
		}, time.Time{}},
		{"a deletion triggers nothing", func() { s.DeleteSlice(Name{"shop", "web-1"}) }, time.Time{}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			tc.update()
			got := s.Take()
			if len(got.Services) != 1 || !got.Services[0].Triggered.Equal(tc.want) {
				t.Errorf("got %v, want one view triggered at %v", got.Services, tc.want)
			}
		})
	}
}

func TestAServiceThatIsUnknownHasNoTriggerTime(t *testing.T) {
	s, c := newStore()
	s.SetSynced()
	s.PutSlice(triggered(web, "10.1.0.1", c.t.Add(time.Second)))
	if v := s.Take().Services[0]; v.Service != nil || !v.Triggered.IsZero() {
		t.Errorf("view = %v", v)
	}
}

func TestWhatIsPutBackKeepsItsTimesAndDoesNotWakeTheLoop(t *testing.T) {
	s, c := newStore()
	s.SetSynced()
	first, trigger := c.t, c.t.Add(time.Second)
	s.PutService(aService(web, "10.0.0.1"))
	s.PutSlice(triggered(web, "10.1.0.1", trigger))
	failed := s.Take()
	signalled(s)

	c.advance(time.Minute)
	s.PutSlice(triggered(web, "10.1.0.2", c.t)) // newer, before it is put back
	signalled(s)
	s.PutBack(failed)
	if signalled(s) {
		t.Error("PutBack signalled")
	}
	got := s.Take()
	if len(got.Services) != 1 {
		t.Fatalf("services = %v", got.Services)
	}
	v := got.Services[0]
	if !v.Received.Equal(first) || !v.Triggered.Equal(trigger) {
		t.Errorf("received %v and triggered %v, want %v and %v", v.Received, v.Triggered, first, trigger)
	}
	if a := addrs(v.Endpoints[http]); !slices.Equal(a, []string{"10.1.0.2:8080"}) {
		t.Errorf("endpoints %v are not those of now", a)
	}
	if again := s.Take(); !again.Empty() {
		t.Errorf("left over: %v", again)
	}
}

func TestPuttingBackRepeatsTheNodeAndTheServiceCIDRs(t *testing.T) {
	s, _ := newStore()
	s.SetSynced()
	s.PutNode(Node{Name: "n1"})
	s.PutServiceCIDR("kubernetes", prefixes("10.96.0.0/16"))
	failed := s.Take()
	s.PutBack(failed)
	if got := s.Take(); !got.NodeChanged || !got.ServiceCIDRsChanged {
		t.Errorf("changes = %v", got)
	}
	s.PutBack(Changes{})
	if got := s.Take(); !got.Empty() {
		t.Errorf("putting nothing back is a change: %v", got)
	}
}

func TestMarkingEverythingDirtyRepeatsTheServiceCIDRs(t *testing.T) {
	s, _ := newStore()
	s.PutServiceCIDR("kubernetes", prefixes("10.96.0.0/16"))
	s.SetSynced()
	s.Take()
	s.MarkAllDirty()
	if got := s.Take(); !got.ServiceCIDRsChanged || len(got.ServiceCIDRs) != 1 {
		t.Errorf("changes = %v", got)
	}
}

// TestServiceCIDRs plays updates on a store that knows two objects.
func TestServiceCIDRs(t *testing.T) {
	const both = "10.96.0.0/16 fd00:96::/108"
	tests := []struct {
		name    string
		update  func(*Store)
		want    string
		changed bool
	}{
		{"an equal object is no change", func(s *Store) { s.PutServiceCIDR("a", prefixes("10.96.0.0/16")) }, both, false},
		{"another object is added", func(s *Store) { s.PutServiceCIDR("c", prefixes("10.97.0.0/16")) },
			"10.96.0.0/16 10.97.0.0/16 fd00:96::/108", true},
		{"a range two objects have is there once", func(s *Store) { s.PutServiceCIDR("c", prefixes("10.96.0.0/16")) }, both, false},
		{"a range two objects had outlives one of them", func(s *Store) {
			s.PutServiceCIDR("c", prefixes("10.96.0.0/16"))
			s.DeleteServiceCIDR("a")
		}, both, false},
		{"an object may change", func(s *Store) { s.PutServiceCIDR("a", prefixes("10.98.0.0/16")) }, "10.98.0.0/16 fd00:96::/108", true},
		{"a deleted object takes its range away", func(s *Store) { s.DeleteServiceCIDR("b") }, "10.96.0.0/16", true},
		{"deleting an unknown one is no change", func(s *Store) { s.DeleteServiceCIDR("x") }, both, false},
		{"replacing everything by the same is no change", func(s *Store) {
			s.Replace(Content{ServiceCIDRs: map[string][]netip.Prefix{"a": prefixes("10.96.0.0/16"), "b": prefixes("fd00:96::/108")}})
		}, both, false},
		{"replacing everything takes away what is not in it", func(s *Store) {
			s.Replace(Content{ServiceCIDRs: map[string][]netip.Prefix{"b": prefixes("fd00:96::/108")}})
		}, "fd00:96::/108", true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := newStore()
			s.PutServiceCIDR("b", prefixes("fd00:96::/108"))
			s.PutServiceCIDR("a", prefixes("10.96.0.0/16"))
			s.SetSynced()
			s.Take()
			signalled(s)

			tc.update(s)
			if got := signalled(s); got != tc.changed {
				t.Errorf("signalled %v, want %v", got, tc.changed)
			}
			got := s.Take()
			if !slices.Equal(got.ServiceCIDRs, prefixes(tc.want)) || got.ServiceCIDRsChanged != tc.changed || got.Empty() == tc.changed {
				t.Errorf("got %v, changed %v; want %s, changed %v", got.ServiceCIDRs, got.ServiceCIDRsChanged, tc.want, tc.changed)
			}
		})
	}
}
