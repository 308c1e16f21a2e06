package mapstest

import (
	"errors"
	"math/rand/v2"
)

// ErrInjected is what writes fail with after FailRandom.
var ErrInjected = errors.New("injected failure")

// faults decides which writes fail.
type faults struct {
	pass, fail  int // after pass writes the next fail ones fail with err
	err         error
	rng         *rand.Rand
	probability float64
}

// next is the error of the write about to happen.
func (f *faults) next() error {
	switch {
	case f.pass > 0 && f.fail > 0:
		f.pass--
	case f.fail > 0:
		f.fail--
		return f.err
	}
	if f.rng != nil && f.rng.Float64() < f.probability {
		return ErrInjected
	}
	return nil
}

// FailNext makes the next n writes fail with err, replacing what an earlier
// FailNext or FailAfter has left. Writes are all puts, deletes (of flows too)
// and writes of slots; putting a flow is not, as only tests do it. n = 0 stops
// failing.
func (f *Fake) FailNext(n int, err error) { f.setFaults(0, n, err) }

// FailAfter lets n writes pass and makes the one after them fail with err.
func (f *Fake) FailAfter(n int, err error) { f.setFaults(n, 1, err) }

func (f *Fake) setFaults(pass, fail int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults.pass, f.faults.fail, f.faults.err = pass, fail, err
}

// FailRandom makes each write fail with ErrInjected at the given probability
// (0 to 1), drawn from rng, which is the Fake's from now on. A nil rng stops
// it.
func (f *Fake) FailRandom(rng *rand.Rand, probability float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults.rng, f.faults.probability = rng, probability
}
