package fuzz

import (
	"flag"
	"math/rand/v2"
	"testing"

	"github.com/ebb-lb/ebb/maps"
)

var (
	seed    = flag.Uint64("seed", 1, "of the random packets")
	packets = flag.Int("packets", 1500, "random packets")
)

// The programs do with every frame what the reference says.
func FuzzTranslate(f *testing.F) {
	p := newPair(f)
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, frame []byte) { p.check(t, frame) })
}

// The same for packets that were changed where it hurts.
func TestRandomAndMutatedPackets(t *testing.T) {
	p := newPair(t)
	r := rand.New(rand.NewPCG(*seed, 0))
	from := seeds(t)
	seen := make(map[maps.Hook]map[maps.Verdict]int)
	for _, hook := range uplinkHooks {
		seen[hook] = make(map[maps.Verdict]int)
	}
	t.Cleanup(func() { t.Logf("-seed=%d: %v", *seed, seen) })
	for range *packets {
		for hook, v := range p.check(t, mutate(r, pick(r, from))) {
			seen[hook][v]++
		}
	}
}

// The seeds reach every verdict that does not need a full map or a broken kernel.
func TestSeedsReachEveryVerdict(t *testing.T) {
	w := newWorld()
	seen := make(map[maps.Hook]map[maps.Verdict]bool)
	for _, hook := range uplinkHooks {
		seen[hook] = make(map[maps.Verdict]bool)
		for _, s := range seeds(t) {
			seen[hook][Translate(clip(s), hook, w).Verdict] = true
		}
	}
	for hook, verdicts := range reachable() {
		for _, v := range verdicts {
			if !seen[hook][v] {
				t.Errorf("no seed is %s at %s", v, hook)
			}
		}
	}
}

func reachable() map[maps.Hook][]maps.Verdict {
	untouched := []maps.Verdict{
		maps.VerdictNotIP, maps.VerdictNotL4, maps.VerdictMalformed, maps.VerdictFragment,
		maps.VerdictExtHeaders, maps.VerdictNotService,
	}
	arriving := append(untouched[:len(untouched):len(untouched)], maps.VerdictToLocal, maps.VerdictToRemote,
		maps.VerdictReplyRemote, maps.VerdictNoBackend, maps.VerdictNoFlow, maps.VerdictNotOurs, maps.VerdictMartian)
	arriving = arriving[:len(arriving):len(arriving)]
	return map[maps.Hook][]maps.Verdict{
		maps.HookXDP:       append(arriving, maps.VerdictLeftToTC),
		maps.HookTCIngress: append(arriving, maps.VerdictTTLExpired, maps.VerdictTooBig),
		maps.HookTCEgress:  append(untouched, maps.VerdictReplyLocal),
	}
}
