package maglev

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func pods(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("10.%d.%d.%d:8080", i/65536, i/256%256, i%256)
	}
	return names
}

func TestSize(t *testing.T) {
	tests := map[int]uint32{
		-1: 0, 0: 0, 1: 1, 2: 251, 3: 251, 4: 509, 7: 509, 8: 1021, 15: 1021, 16: 2039, 1000: 65521,
		1023: 65521, 1024: 131071, 16383: 1048573, 16384: 1048573, 100000: 1048573,
	}
	for n, want := range tests {
		if got := Size(n); got != want {
			t.Errorf("Size(%d): got %d, want %d", n, got, want)
		}
	}
	for _, size := range ladder {
		for d := uint32(2); d*d <= size; d++ {
			if size%d == 0 {
				t.Errorf("%d is not a prime: %d divides it", size, d)
			}
		}
	}
}

func TestNothingToBuild(t *testing.T) {
	if got := Build(nil, 251); got != nil {
		t.Errorf("without backends: got %d slots", len(got))
	}
	if got := Build(pods(3), 0); got != nil {
		t.Errorf("without slots: got %d", len(got))
	}
}

func TestSharesDifferByAtMostOneSlot(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 63, 100, 1000} {
		counts := make([]int, n)
		for _, b := range Build(pods(n), Size(n)) {
			counts[b]++
		}
		if least, most := slices.Min(counts), slices.Max(counts); most-least > 1 {
			t.Errorf("%d backends: shares from %d to %d slots", n, least, most)
		}
	}
}

// A table is part of what nodes agree on: this one must never change.
func TestTableIsTheSameInEveryBuild(t *testing.T) {
	names := []string{"10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"}
	got := fmt.Sprint(Build(names, 13))
	if want := "[1 0 1 2 1 2 0 2 0 1 0 0 2]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestOrderOfBackendsDoesNotMatter(t *testing.T) {
	names := pods(40)
	want := named(names, Build(names, Size(40)))
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		if diff := cmp.Diff(want, named(names, Build(names, Size(40)))); diff != "" {
			t.Fatalf("table changed with the order (-want +got):\n%s", diff)
		}
	}
}

func named(names []string, table []int) []string {
	out := make([]string, len(table))
	for i, b := range table {
		out[i] = names[b]
	}
	return out
}

// moved is the share of slots that name different backends in the two tables
// although both backends are in both tables.
func moved(from, to []string, gone string) float64 {
	n := 0
	for i := range from {
		if from[i] != to[i] && from[i] != gone && to[i] != gone {
			n++
		}
	}
	return float64(n) / float64(len(from))
}

// With Factor slots per backend and more, a backend that leaves or comes moves
// less than 4 percent of the slots between the others (modulo hashing would
// move nearly all of them).
func TestOneBackendMoreOrLessMovesFewSlotsOfOthers(t *testing.T) {
	const bound = 0.04
	for _, n := range []int{3, 10, 30, 100, 500} {
		names := pods(n)
		size := Size(n)
		all := named(names, Build(names, size))
		var sum float64
		gone := min(n, 20)
		for i := range gone {
			rest := slices.Delete(slices.Clone(names), i, i+1)
			sum += moved(all, named(rest, Build(rest, size)), names[i])
		}
		if mean := sum / float64(gone); mean > bound {
			t.Errorf("%d backends, one leaves: %.1f%% of the slots move between the others", n, 100*mean)
		} else {
			t.Logf("%d backends: %.2f%%", n, 100*mean)
		}
	}
}

func FuzzBuild(f *testing.F) {
	f.Add("10.0.0.1:80 10.0.0.2:80", uint32(251))
	f.Add("a", uint32(1))
	f.Add("a b c", uint32(1))
	f.Add("a b c", uint32(12))
	f.Add("a a b", uint32(509))
	f.Fuzz(func(t *testing.T, list string, size uint32) {
		names := strings.Fields(list)
		size %= 1 << 14
		table := Build(names, size)
		if len(names) == 0 || size == 0 {
			if table != nil {
				t.Fatal("a table of nothing")
			}
			return
		}
		counts := make([]int, len(names))
		for _, b := range table {
			counts[b]++
		}
		if len(table) != int(size) || slices.Max(counts)-slices.Min(counts) > 1 {
			t.Fatalf("%d slots of %d, shares %v", len(table), size, counts)
		}
		reversed := slices.Clone(names)
		slices.Reverse(reversed)
		if diff := cmp.Diff(named(names, table), named(reversed, Build(reversed, size))); diff != "" {
			t.Fatalf("table changed with the order (-want +got):\n%s", diff)
		}
	})
}
