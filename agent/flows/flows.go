// Package flows collects flows that are over and counts those that live. It
// knows when a flow is over; it deliberately does not know what a backend is
// beyond its index and whether it is gone, and it never touches a flow that may
// still be used.
package flows

import (
	"context"
	"fmt"
	"time"

	"github.com/ebb-lb/ebb/maps"
)

// Timeouts say how long a flow may be silent in both directions.
type Timeouts struct {
	Established time.Duration // TCP
	HalfClosed  time.Duration // TCP after the FIN of one side
	Closed      time.Duration // TCP after FIN in both directions, or RST
	HalfOpen    time.Duration // TCP handshake
	Associated  time.Duration // SCTP
	Associating time.Duration // SCTP handshake
	Unreplied   time.Duration // UDP
	Replied     time.Duration // UDP
}

// DefaultTimeouts are those of DESIGN §4 and, for half-closed flows,
// kube-proxy's tcpCloseWaitTimeout. An association that is idle sends a heartbeat
// every 30 s (RFC 9260, 16); netfilter's conntrack misses seven of them too.
func DefaultTimeouts() Timeouts {
	return Timeouts{
		Established: 24 * time.Hour,
		HalfClosed:  time.Hour,
		Closed:      30 * time.Second,
		HalfOpen:    20 * time.Second,
		Associated:  210 * time.Second,
		Associating: 30 * time.Second,
		Unreplied:   30 * time.Second,
		Replied:     180 * time.Second,
	}
}

// Table is one of the maps flows and half_open.
type Table interface {
	Each(func(maps.FlowKey, maps.Flow) bool) error
	Lookup(maps.FlowKey) (maps.Flow, bool, error)
	Delete(maps.FlowKey) error
}

// Clock tells ticks, the unit of maps.Flow.Seen.
type Clock interface {
	Now() (uint32, error)
	Tick() time.Duration
}

// Owner is a backend as flows refer to it: an index and who had it.
type Owner struct {
	ID         maps.BackendID
	Generation uint32
}

// Report is what one collection found.
type Report struct {
	// Live are the connections that are not closed, by backend.
	Live map[Owner]int
	// Entries and HalfOpen are the entries left in the two maps.
	Entries, HalfOpen int
	// Deleted are the entries removed from both.
	Deleted int
}

// Collector looks through the flow maps. It is not safe for concurrent use.
type Collector struct {
	Flows, HalfOpen Table
	Clock           Clock
	Timeouts        Timeouts
	// Gone reports whether a backend has left. What it never answered goes at
	// once. Nil: none is known to have left.
	Gone func(Owner) bool
}

// Collect looks at every flow once and removes those that are over.
func (c *Collector) Collect(ctx context.Context) (Report, error) {
	r := Report{Live: make(map[Owner]int)}
	now, err := c.Clock.Now()
	if err != nil {
		return r, fmt.Errorf("collect flows: %w", err)
	}
	s := scan{Collector: c, now: now, report: &r}
	if err := s.flows(ctx); err != nil {
		return r, fmt.Errorf("collect flows: %w", err)
	}
	if err := s.halfOpen(ctx); err != nil {
		return r, fmt.Errorf("collect half-open flows: %w", err)
	}
	return r, ctx.Err()
}

// scan is one collection.
type scan struct {
	*Collector
	now    uint32
	report *Report
}

// maxOver bounds what one pass remembers for deletion; the next pass finds the rest.
const maxOver = 1 << 16

func (s *scan) flows(ctx context.Context) error {
	var over []maps.FlowKey
	err := s.Flows.Each(func(k maps.FlowKey, f maps.Flow) bool {
		s.report.Entries++
		if f.Flags&maps.FlowReverse == 0 && !f.Closed() {
			s.report.Live[Owner{f.Backend, f.Generation}]++
		}
		if (s.idle(f) > s.timeout(k, f) || s.unheard(k, f)) && len(over) < maxOver {
			over = append(over, k)
		}
		return ctx.Err() == nil
	})
	if err != nil {
		return err
	}
	for _, k := range over {
		if err := s.remove(k); err != nil {
			return err
		}
	}
	return nil
}

// unheard reports whether f is of a backend that has left, and the half that
// would know if it had ever answered: datagrams only, of TCP there is no such
// flow but in half_open.
func (s *scan) unheard(k maps.FlowKey, f maps.Flow) bool {
	return k.Proto == maps.UDP && f.Flags&(maps.FlowReverse|maps.FlowReplied) == maps.FlowReverse && s.gone(f)
}

func (s *scan) gone(f maps.Flow) bool {
	return s.Gone != nil && s.Gone(Owner{f.Backend, f.Generation})
}

// remove deletes a flow and its counterpart if both are idle at this moment, or
// its backend is gone and never answered: since it was seen so a packet may
// have come, or a new flow taken its place.
func (s *scan) remove(k maps.FlowKey) error {
	f, ok, err := s.Flows.Lookup(k)
	unheard := ok && s.unheard(k, f)
	if err != nil || !ok || s.idle(f) <= s.timeout(k, f) && !unheard {
		return err
	}
	other := maps.Counterpart(k, f)
	peer, paired, err := s.Flows.Lookup(other)
	if err != nil {
		return err
	}
	paired = paired && maps.Counterpart(other, peer) == k
	if paired && s.idle(peer) <= s.timeout(other, peer) && !unheard {
		return nil
	}
	if err := s.delete(k, f); err != nil || !paired {
		return err
	}
	return s.delete(other, peer)
}

// delete removes one half, and takes it out of what was counted.
func (s *scan) delete(k maps.FlowKey, f maps.Flow) error {
	if err := s.Flows.Delete(k); err != nil {
		return err
	}
	s.report.Deleted++
	s.report.Entries--
	if f.Flags&maps.FlowReverse == 0 && !f.Closed() {
		s.report.Live[Owner{f.Backend, f.Generation}]--
	}
	return nil
}

func (s *scan) halfOpen(ctx context.Context) error {
	var over []maps.FlowKey
	err := s.HalfOpen.Each(func(k maps.FlowKey, f maps.Flow) bool {
		s.report.HalfOpen++
		reverse := f.Flags&maps.FlowReverse != 0
		if (s.idle(f) > s.handshake(k) || reverse && s.gone(f)) && len(over) < maxOver {
			over = append(over, k)
		}
		return ctx.Err() == nil
	})
	if err != nil {
		return err
	}
	for _, k := range over {
		if err := s.removeHalf(k); err != nil {
			return err
		}
	}
	return nil
}

// removeHalf deletes an entry of a handshake that is idle at this moment, or
// that a backend which is gone has not answered: else its client has a half too,
// and may believe to be connected.
func (s *scan) removeHalf(k maps.FlowKey) error {
	f, ok, err := s.HalfOpen.Lookup(k)
	if err != nil || !ok {
		return err
	}
	if s.idle(f) <= s.handshake(k) {
		other := maps.Counterpart(k, f)
		peer, paired, err := s.HalfOpen.Lookup(other)
		if err != nil || !s.gone(f) || paired && maps.Counterpart(other, peer) == k {
			return err
		}
	}
	if err := s.HalfOpen.Delete(k); err != nil {
		return err
	}
	s.report.Deleted++
	s.report.HalfOpen--
	return nil
}

// idle is the time since the last packet of this direction. A packet that came
// after now was read counts as just seen.
func (s *scan) idle(f maps.Flow) time.Duration {
	return time.Duration(max(0, int32(s.now-f.Seen))) * s.Clock.Tick()
}

// timeout is how long this half may be silent. Only the reverse half of a UDP
// flow knows whether the backend has answered; the other is asked too before
// anything is removed.
func (s *scan) timeout(k maps.FlowKey, f maps.Flow) time.Duration {
	t := s.Timeouts
	switch {
	case k.Proto == maps.UDP && f.Flags&maps.FlowReplied != 0:
		return t.Replied
	case k.Proto == maps.UDP:
		return t.Unreplied
	case f.Closed():
		return t.Closed
	case k.Proto == maps.SCTP:
		return t.Associated
	case f.Flags&(maps.FlowFIN|maps.FlowPeerFIN) != 0:
		return t.HalfClosed
	}
	return t.Established
}

// handshake is how long one may be silent. INIT and COOKIE ECHO are repeated
// after longer pauses than a SYN.
func (s *scan) handshake(k maps.FlowKey) time.Duration {
	if k.Proto == maps.SCTP {
		return s.Timeouts.Associating
	}
	return s.Timeouts.HalfOpen
}
