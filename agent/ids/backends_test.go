package ids

import (
	"errors"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/maps"
)

const grace = 2 * time.Second

var start = time.Unix(1_000_000, 0)

func key(port maps.ServicePortID, host byte) BackendKey {
	return BackendKey{Port: port, Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, host}), 8080)}
}

func backend(k BackendKey, state maps.State, generation uint32) maps.Backend {
	return maps.Backend{Addr: k.Addr, ServicePort: k.Port, State: state, Generation: generation}
}

func noFlows(maps.BackendID) int { return 0 }

func take(t *testing.T, b *Backends, k BackendKey) Lease {
	t.Helper()
	l, err := b.Take(k)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func wantLease(t *testing.T, l Lease, id maps.BackendID, generation uint32) {
	t.Helper()
	if l.ID != id || l.Generation != generation {
		t.Errorf("index %d generation %d, want %d and %d", l.ID, l.Generation, id, generation)
	}
}

func wantFull(t *testing.T, b *Backends, why string) {
	t.Helper()
	if l, err := b.Take(key(9, 99)); !errors.Is(err, ErrFull) {
		t.Errorf("%s: lease %v, error %v; want %v", why, l, err, ErrFull)
	}
}

func TestABackendKeepsItsIndexOverARestart(t *testing.T) {
	b := NewBackends(8, grace, map[maps.BackendID]maps.Backend{
		1: backend(key(1, 1), maps.Active, 4),
		3: backend(key(1, 2), maps.Draining, 7),
		4: backend(key(1, 3), maps.Gone, 2),
		5: {State: maps.Free},
	})
	for host, want := range map[byte]struct {
		id         maps.BackendID
		generation uint32
		ok         bool
	}{1: {1, 4, true}, 2: {3, 7, true}, 3: {0, 0, false}} {
		id, generation, ok := b.Lookup(key(1, host))
		if ok != want.ok || ok && (id != want.id || generation != want.generation) {
			t.Errorf("host %d: %d, %d, %v; want %v", host, id, generation, ok, want)
		}
	}
	// Indexes never used come first, around the others, also the one that is gone.
	for _, want := range []maps.BackendID{0, 2, 5, 6, 7} {
		wantLease(t, take(t, b, key(2, byte(want))), want, 1)
	}
	b.Begin(start, noFlows)
	wantFull(t, b, "nobody said since when index 4 is gone")
}

func TestOfTwoIndexesOfABackendTheLowestCounts(t *testing.T) {
	b := NewBackends(8, grace, map[maps.BackendID]maps.Backend{
		6: backend(key(1, 1), maps.Active, 1),
		2: backend(key(1, 1), maps.Draining, 3),
		0: backend(key(1, 1), maps.Gone, 5),
	})
	if id, generation, ok := b.Lookup(key(1, 1)); id != 2 || generation != 3 || !ok {
		t.Errorf("index %d generation %d, %v; want 2 and 3", id, generation, ok)
	}
	b.Retire(6, start)
	if id, _, ok := b.Lookup(key(1, 1)); id != 2 || !ok {
		t.Errorf("after the other one went: %d, %v; want 2", id, ok)
	}
}

func TestAnIndexIsReusedAfterTheGracePeriodAndItsLastFlow(t *testing.T) {
	b := NewBackends(1, grace, nil)
	wantLease(t, take(t, b, key(1, 1)), 0, 1)
	wantFull(t, b, "in use")
	b.Retire(0, start)
	flows := 1
	live := func(maps.BackendID) int { return flows }

	b.Begin(start.Add(grace-1), noFlows)
	wantFull(t, b, "within the grace period")
	b.Begin(start.Add(grace), live)
	wantFull(t, b, "one live flow")
	flows = -1
	b.Begin(start.Add(grace), live)
	wantFull(t, b, "live flows not counted yet")
	b.Begin(start.Add(grace), nil)
	wantFull(t, b, "nobody counts live flows")
	b.Begin(start.Add(grace), noFlows)
	l := take(t, b, key(2, 2))
	wantLease(t, l, 0, 2)
	if !l.Reused || l.Previous != key(1, 1) {
		t.Errorf("reused %v, previous %v", l.Reused, l.Previous)
	}
}

func TestTheIndexGoneLongestIsReusedFirst(t *testing.T) {
	b := NewBackends(4, grace, nil)
	for host := range byte(4) {
		take(t, b, key(1, host))
	}
	for i, id := range []maps.BackendID{2, 0, 3, 1} {
		b.Retire(id, start.Add(time.Duration(i)*time.Second))
	}
	busy := maps.BackendID(0)
	b.Begin(start.Add(grace+2*time.Second), func(id maps.BackendID) int {
		if id == busy {
			return 1
		}
		return 0
	})
	wantLease(t, take(t, b, key(2, 1)), 2, 2)
	wantLease(t, take(t, b, key(2, 2)), 3, 2) // 0 has a flow
	wantFull(t, b, "1 went too recently")
	b.Begin(start.Add(time.Hour), noFlows)
	wantLease(t, take(t, b, key(2, 3)), 0, 2)
	wantLease(t, take(t, b, key(2, 4)), 1, 2)
}

func TestABackendThatComesBackIsANewOne(t *testing.T) {
	b := NewBackends(2, grace, nil)
	take(t, b, key(1, 1))
	b.Retire(0, start)
	if _, _, ok := b.Lookup(key(1, 1)); ok {
		t.Error("a retired backend is found")
	}
	wantLease(t, take(t, b, key(1, 1)), 1, 1)
	b.Retire(1, start)
	b.Begin(start.Add(grace), noFlows)
	wantLease(t, take(t, b, key(1, 1)), 0, 2)
}

func TestAGenerationIsNeverZero(t *testing.T) {
	b := NewBackends(1, grace, map[maps.BackendID]maps.Backend{0: backend(key(1, 1), maps.Gone, math.MaxUint32)})
	b.Retire(0, start)
	b.Begin(start.Add(grace), noFlows)
	wantLease(t, take(t, b, key(1, 1)), 0, 1)
}

func TestGoneSinceIsKnownOfThatGenerationOnly(t *testing.T) {
	b := NewBackends(4, grace, map[maps.BackendID]maps.Backend{3: backend(key(1, 3), maps.Gone, 5)})
	take(t, b, key(1, 1))
	if _, ok := b.GoneSince(0, 1); ok {
		t.Error("a living backend is gone")
	}
	if _, ok := b.GoneSince(3, 5); ok {
		t.Error("the time is known of a backend nobody retired")
	}
	b.Retire(0, start)
	b.Retire(0, start.Add(time.Hour)) // the first time counts
	b.Retire(2, start)                // never used
	for generation, want := range map[uint32]bool{1: true, 2: false} {
		if since, ok := b.GoneSince(0, generation); ok != want || ok && !since.Equal(start) {
			t.Errorf("generation %d: %v, %v; want %v", generation, since, ok, want)
		}
	}
	if _, ok := b.GoneSince(2, 0); ok {
		t.Error("an index never used is gone")
	}
}

func TestBackendsRunOutWithAnErrorThatNamesTheFlag(t *testing.T) {
	b := NewBackends(3, grace, nil)
	for host := range byte(3) {
		take(t, b, key(1, host))
	}
	b.Retire(1, start)
	b.Begin(start, noFlows)
	_, err := b.Take(key(1, 9))
	if !errors.Is(err, ErrFull) {
		t.Fatalf("error %v, want %v", err, ErrFull)
	}
	for _, want := range []string{"10.0.0.9:8080", "2 of 3 are in use", "1 belong", "--max-backends"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
}
