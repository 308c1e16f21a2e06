package service

import "time"

// Counts is what a Store has seen and what is still to be taken from it.
type Counts struct {
	// ServiceChanges and SliceChanges are all there were, the pending ones
	// those since the last Take.
	ServiceChanges, SliceChanges               uint64
	PendingServiceChanges, PendingSliceChanges int
	// Dirty are the services the next Take will contain.
	Dirty int
	// Changed is when the last change was received; zero if there was none.
	Changed time.Time
}

// Counts returns what the Store has seen so far.
func (s *Store) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	c.Dirty = len(s.dirty)
	return c
}

func (c *Counts) service() {
	c.ServiceChanges++
	c.PendingServiceChanges++
}

func (c *Counts) slice() {
	c.SliceChanges++
	c.PendingSliceChanges++
}

// taken notes that nothing is pending any more.
func (c *Counts) taken() { c.PendingServiceChanges, c.PendingSliceChanges = 0, 0 }
