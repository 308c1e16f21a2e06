// Package maglev fills lookup tables by Maglev hashing (Eisenbud et al.,
// "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016).
// It knows names and numbers of slots. It deliberately knows no backend, no
// map and no weight. The hash is written out here: nodes that run different
// builds must compute the same table.
package maglev

import (
	"cmp"
	"slices"
)

// Factor is the least number of slots per backend that Size aims at. It bounds
// how unequal shares are: one slot more or less, so at most 1/64 of a share.
const Factor = 64

// ladder are the table sizes in use, each the largest prime below a power of
// two. Few sizes, so that freed regions fit the next table.
var ladder = [...]uint32{
	251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071, 262139, 524287, 1048573,
}

// Size returns the number of slots for n backends: none for none, one for one,
// else the smallest of a ladder of primes with at least Factor slots per
// backend. Beyond 16383 backends it is the largest of them.
func Size(n int) uint32 {
	switch {
	case n <= 0:
		return 0
	case n == 1:
		return 1
	}
	for _, size := range ladder {
		if uint64(size) >= Factor*uint64(n) {
			return size
		}
	}
	return ladder[len(ladder)-1]
}

// Build returns a table of size slots, each an index into backends. The table
// depends on the set of names only, not on their order. Each name gets as
// many slots as any other, give or take one. Without backends or slots it
// returns nil.
//
// The memory of the result is the caller's. Time is O(size log size); sizes
// that are not prime work too, but spread worse.
func Build(backends []string, size uint32) []int {
	if len(backends) == 0 || size == 0 {
		return nil
	}
	turns := walkers(backends, size)
	table := make([]int, size)
	for i := range table {
		table[i] = -1
	}
	for filled := uint32(0); filled < size; {
		for i := range turns {
			w := &turns[i]
			for table[w.at] >= 0 {
				w.step(size)
			}
			table[w.at] = w.backend
			if filled++; filled == size {
				break
			}
		}
	}
	return table
}

// walker visits every slot once, in the order its backend prefers them.
type walker struct {
	backend  int
	at, skip uint32
}

func (w *walker) step(size uint32) {
	// Sizes may use all 32 bits, so the sum may not be formed.
	if rest := size - w.at; w.skip >= rest {
		w.at = w.skip - rest
	} else {
		w.at += w.skip
	}
}

// walkers returns one walker per backend in the order of their names, which
// makes the table independent of the order they were given in.
func walkers(backends []string, size uint32) []walker {
	ws := make([]walker, len(backends))
	for i, name := range backends {
		h := hash(name)
		ws[i] = walker{
			backend: i,
			at:      uint32(mix(h) % uint64(size)),
			skip:    coprime(uint32(mix(h+golden)%uint64(max(size-1, 1)))+1, size),
		}
	}
	slices.SortFunc(ws, func(a, b walker) int { return cmp.Compare(backends[a.backend], backends[b.backend]) })
	return ws
}

// coprime returns the first number from skip on that shares no divisor with
// size, so that steps of it reach every slot. For a prime size it is skip.
func coprime(skip, size uint32) uint32 {
	for gcd(skip, size) != 1 {
		skip = skip%size + 1
	}
	return skip
}

func gcd(a, b uint32) uint32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

const (
	fnvOffset = 0xcbf29ce484222325
	fnvPrime  = 0x100000001b3
	golden    = 0x9e3779b97f4a7c15
)

// hash is FNV-1a, 64 bits.
func hash(s string) uint64 {
	h := uint64(fnvOffset)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return h
}

// mix is the finalizer of splitmix64: names that differ in their last byte
// only, as addresses do, must not get neighbouring numbers.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
