package ids

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/maps"
)

func takeRegion(t *testing.T, r *Regions, length, wantOffset uint32) maps.Table {
	t.Helper()
	got, err := r.Take(length)
	if want := (maps.Table{Offset: wantOffset, Length: length}); err != nil || got != want {
		t.Fatalf("take %d slots: %v, error %v; want %v", length, got, err, want)
	}
	return got
}

func wantNoRegion(t *testing.T, r *Regions, length uint32) {
	t.Helper()
	if got, err := r.Take(length); !errors.Is(err, ErrFull) {
		t.Errorf("take %d slots: %v, error %v; want %v", length, got, err, ErrFull)
	}
}

func TestRegionsInUseAtTheStartAreLeftAlone(t *testing.T) {
	tests := []struct {
		name string
		used []maps.Table
		want []maps.Table // free
	}{
		{"nothing in use", nil, []maps.Table{{Offset: 0, Length: 100}}},
		{"a gap between two", []maps.Table{{Offset: 60, Length: 40}, {Offset: 0, Length: 50}}, []maps.Table{{Offset: 50, Length: 10}}},
		{"overlapping ones", []maps.Table{{Offset: 10, Length: 50}, {Offset: 20, Length: 5}, {Offset: 55, Length: 15}},
			[]maps.Table{{Offset: 0, Length: 10}, {Offset: 70, Length: 30}}},
		{"beyond the end", []maps.Table{{Offset: 90, Length: 50}, {Offset: 200, Length: 1}, {Offset: ^uint32(0), Length: ^uint32(0)}},
			[]maps.Table{{Offset: 0, Length: 90}}},
		{"all in use", []maps.Table{{Offset: 0, Length: 100}}, nil},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, NewRegions(100, tc.used).free); diff != "" {
				t.Errorf("free (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheFirstRegionThatFitsIsTaken(t *testing.T) {
	r := NewRegions(100, []maps.Table{{Offset: 5, Length: 5}, {Offset: 30, Length: 10}})
	takeRegion(t, r, 10, 10)
	takeRegion(t, r, 5, 0)
	takeRegion(t, r, 10, 20)
	takeRegion(t, r, 60, 40)
	wantNoRegion(t, r, 1)
}

func TestAReleasedRegionComesBackWhenItsTimeHasCome(t *testing.T) {
	r := NewRegions(30, nil)
	a, b := takeRegion(t, r, 10, 0), takeRegion(t, r, 20, 10)
	r.Release(a, start.Add(time.Second))
	r.Release(b, start.Add(2*time.Second))
	wantNoRegion(t, r, 1)
	r.Reclaim(start.Add(time.Second - 1))
	wantNoRegion(t, r, 1)
	r.Reclaim(start.Add(time.Second))
	if got := r.Held(); len(got) != 1 || got[0].Table != b {
		t.Errorf("held %v, want only %v", got, b)
	}
	takeRegion(t, r, 10, 0)
	wantNoRegion(t, r, 1)
	r.Reclaim(start.Add(time.Hour))
	takeRegion(t, r, 20, 10)
}

func TestReserveTakesWhatIsFreeOfARegion(t *testing.T) {
	used := []maps.Table{{Offset: 20, Length: 20}}
	tests := []struct {
		name       string
		at         maps.Table
		want, free []maps.Table
	}{
		{"all of it", maps.Table{Offset: 5, Length: 10}, []maps.Table{{Offset: 5, Length: 10}},
			[]maps.Table{{Offset: 0, Length: 5}, {Offset: 15, Length: 5}, {Offset: 40, Length: 60}}},
		{"pieces on both sides", maps.Table{Offset: 10, Length: 50}, []maps.Table{{Offset: 10, Length: 10}, {Offset: 40, Length: 20}},
			[]maps.Table{{Offset: 0, Length: 10}, {Offset: 60, Length: 40}}},
		{"nothing", maps.Table{Offset: 25, Length: 10}, nil, []maps.Table{{Offset: 0, Length: 20}, {Offset: 40, Length: 60}}},
		{"up to the end", maps.Table{Offset: 90, Length: 100}, []maps.Table{{Offset: 90, Length: 10}},
			[]maps.Table{{Offset: 0, Length: 20}, {Offset: 40, Length: 50}}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			r := NewRegions(100, used)
			if diff := cmp.Diff(tc.want, r.Reserve(tc.at)); diff != "" {
				t.Errorf("reserved (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.free, r.free); diff != "" {
				t.Errorf("free (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRegionsRunOutWithAnErrorThatSaysWhatIsFree(t *testing.T) {
	r := NewRegions(100, []maps.Table{{Offset: 10, Length: 70}})
	r.Release(takeRegion(t, r, 5, 0), start.Add(time.Second))
	_, err := r.Take(21)
	if !errors.Is(err, ErrFull) {
		t.Fatalf("error %v, want %v", err, ErrFull)
	}
	for _, want := range []string{"table of 21 slots", "25 of 100 are free", "20 in one piece", "5 were in use a moment ago", "--max-slots"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
}

// Whatever is taken and given back: no slot is handed out twice, and all of
// them are one piece again at the end.
func TestNoSlotIsHandedOutTwice(t *testing.T) {
	for seed := range uint64(50) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { churnRegions(t, rand.New(rand.NewPCG(seed, 0))) })
	}
}

func churnRegions(t *testing.T, rng *rand.Rand) {
	const capacity = 500
	r, now := NewRegions(capacity, nil), start
	owner := make([]int, capacity) // 0: free or held
	var taken []maps.Table
	for n := 1; n <= 300; n++ {
		now = now.Add(time.Second)
		r.Reclaim(now)
		if len(taken) > 0 && rng.IntN(2) == 0 {
			i := rng.IntN(len(taken))
			mark(owner, taken[i], 0)
			r.Release(taken[i], now.Add(time.Duration(rng.IntN(5))*time.Second))
			taken = append(taken[:i], taken[i+1:]...)
			continue
		}
		at, err := r.Take(uint32(1 + rng.IntN(60)))
		if err != nil {
			continue
		}
		for _, slot := range owner[at.Offset : at.Offset+at.Length] {
			if slot != 0 {
				t.Fatalf("step %d: %v overlaps the region of step %d", n, at, slot)
			}
		}
		mark(owner, at, n)
		taken = append(taken, at)
	}
	for _, at := range taken {
		r.Release(at, now)
	}
	r.Reclaim(now.Add(time.Hour))
	if diff := cmp.Diff([]maps.Table{{Length: capacity}}, r.free); diff != "" {
		t.Errorf("free at the end (-want +got):\n%s", diff)
	}
}

func mark(owner []int, at maps.Table, n int) {
	for i := range at.Length {
		owner[at.Offset+i] = n
	}
}
