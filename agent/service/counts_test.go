package service

import (
	"testing"
	"time"
)

func TestCountsAreOfChangesAndOfWhatWaits(t *testing.T) {
	s, _ := newStore()
	want := func(when string, w Counts) {
		t.Helper()
		got := s.Counts()
		if (w.Changed == time.Time{}) != got.Changed.IsZero() {
			t.Errorf("%s: changed at %v", when, got.Changed)
		}
		if got.Changed = w.Changed; got != w {
			t.Errorf("%s: %+v, want %+v", when, got, w)
		}
	}
	want("at first", Counts{})
	some := time.Unix(1, 0)
	s.PutService(aService(web, "10.0.0.1"))
	s.PutService(aService(web, "10.0.0.1")) // equal
	s.PutSlice(aSlice("web-1", web, "10.1.0.1"))
	s.PutSlice(aSlice("web-1", web, "10.1.0.2"))
	want("changed", Counts{ServiceChanges: 1, SliceChanges: 2, PendingServiceChanges: 1, PendingSliceChanges: 2, Dirty: 1, Changed: some})
	s.SetSynced()
	c := s.Take()
	want("taken", Counts{ServiceChanges: 1, SliceChanges: 2, Changed: some})
	s.PutBack(c)
	want("put back", Counts{ServiceChanges: 1, SliceChanges: 2, Dirty: 1, Changed: some})
	s.DeleteService(web)
	s.DeleteSlice(Name{"shop", "web-1"})
	want("deleted", Counts{ServiceChanges: 2, SliceChanges: 3, PendingServiceChanges: 1, PendingSliceChanges: 1, Dirty: 1, Changed: some})
}
