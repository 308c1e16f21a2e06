package statefuzz

import (
	"flag"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	seed = flag.Uint64("seed", 1, "of the first random run")
	runs = flag.Duration("runs", 12*time.Second, "how long random runs are made")
)

// steps is the length of a random run, most that of any.
const (
	steps = 200
	most  = 4 * steps
)

// Whatever happens, in whatever order, the rules hold.
func FuzzState(f *testing.F) {
	all := newRigs(f)
	for s := range uint64(16) {
		f.Add(random(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if failed := play(t, all, data); failed != nil {
			t.Fatal(failed)
		}
	})
}

// The same with random runs, as many as there is time for.
func TestState(t *testing.T) {
	all := newRigs(t)
	end := time.Now().Add(*runs)
	n := uint64(0)
	for ; time.Now().Before(end); n++ {
		data := random(*seed + n)
		if failed := play(t, all, data); failed != nil {
			data, failed = shrink(t, all, data, failed)
			t.Fatalf("-seed=%d, here made shorter: %s\n%q", *seed+n, failed, data)
		}
	}
	t.Logf("%d runs from -seed=%d", n, *seed)
}

// play makes a run of data: its first byte says in what world.
func play(tb testing.TB, all *rigs, data []byte) (failed *failure) {
	tb.Helper()
	if len(data) < 2 || len(data) > 1+most*opSize {
		return nil
	}
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			failed = &r
		default:
			panic(r)
		}
	}()
	s := shapes()[int(data[0])%len(shapes())]
	newWorld(tb, all, s).play(data[1:])
	return nil
}

func random(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	data := make([]byte, 1+steps*opSize)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

// shrink leaves out operations as long as the same rule is broken.
func shrink(tb testing.TB, all *rigs, data []byte, failed *failure) ([]byte, *failure) {
	tb.Helper()
	rule, _, _ := strings.Cut(failed.rule, ":")
	for size := steps / 2; size > 0; size /= 2 {
		for at := 0; at*opSize+1 < len(data); {
			from := 1 + at*opSize
			less := slices.Delete(slices.Clone(data), from, min(from+size*opSize, len(data)))
			if f := play(tb, all, less); f != nil && strings.HasPrefix(f.rule, rule) {
				data, failed = less, f
			} else {
				at += size
			}
		}
	}
	return data, failed
}
