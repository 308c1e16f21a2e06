// Package load is the client of a lab: it keeps opening connections, transferring
// data and sending datagrams, verifies every answer, and counts. It knows the
// protocol of package pod. It deliberately knows nothing about what stands
// between it and the pods, nor what happens to them.
//
// Load is divided into acts. An operation belongs to the act in which it
// began, whenever it ends.
package load

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Config says whom to ask and how much. Rates are bounded by it, whatever the answers.
type Config struct {
	// HTTP and UDP are the addresses to use in turn, as "host:port".
	HTTP, UDP []string
	// Connects is how many connections with one request each are opened per second.
	Connects int
	// Transfers is how many connections with a running transfer there are at
	// any time, Rate the bytes per second of each.
	Transfers int
	Rate      int64
	// Flows is how many UDP flows begin per second; each sends Datagrams, one
	// every Gap, and waits for the answer of each.
	Flows     int
	Datagrams int
	Gap       time.Duration
	// RequestTimeout bounds a connection with one request, DatagramTimeout the
	// answer to a datagram. StallTimeout is how long a transfer may stand still.
	RequestTimeout, DatagramTimeout, StallTimeout time.Duration
	// ReportEvery is how often a Report is made.
	ReportEvery time.Duration
}

// DefaultConfig returns a load that two CPUs carry besides everything else in a
// lab: about 260 new flows per second, and 1 MB/s in 10 transfers.
func DefaultConfig() Config {
	return Config{
		Connects: 200, Transfers: 10, Rate: 100_000,
		Flows: 60, Datagrams: 4, Gap: 100 * time.Millisecond,
		RequestTimeout: 3 * time.Second, DatagramTimeout: time.Second, StallTimeout: 5 * time.Second,
		ReportEvery: 250 * time.Millisecond,
	}
}

// SlowedBy returns c for a machine that is slow times slower than an idle host:
// everything begins that much less often and may take that much longer.
func (c Config) SlowedBy(slow int) Config {
	c.Connects = max(1, c.Connects/slow)
	c.Flows = max(1, c.Flows/slow)
	c.Rate = max(1, c.Rate/int64(slow))
	c.RequestTimeout *= time.Duration(slow)
	c.DatagramTimeout *= time.Duration(slow)
	c.StallTimeout *= time.Duration(slow)
	return c
}

// maxOpen bounds operations under way, for the case that none ends.
const maxOpen = 2048

// shortestTransfer is what is left of a transfer that begins as its act ends, and
// lateTransfer how long one takes at most whose act should have ended: nobody knows
// how long that goes on, and short ones are the most work.
const (
	shortestTransfer = 300 * time.Millisecond
	lateTransfer     = 2 * time.Second
)

// act is an act being played.
type act struct {
	*tally
	transfer time.Duration // length of a transfer at most
	ends     time.Time     // zero: not known
}

// Runner produces load. Use NewRunner, then Run once.
type Runner struct {
	cfg   Config
	act   atomic.Pointer[act]
	book  *book
	ports *ports
	open  chan struct{}
	next  atomic.Uint64
}

// NewRunner returns a Runner that does nothing yet.
func NewRunner(cfg Config) *Runner {
	return &Runner{cfg: cfg, book: newBook(), ports: newPorts(), open: make(chan struct{}, maxOpen)}
}

// Run produces load from the first command on, until a command says stop. It
// reports while it runs, and once more, with Final set, when every operation
// has ended. If ctx ends or commands is closed it returns early with an error.
func (r *Runner) Run(ctx context.Context, commands <-chan Command, report func(Report) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ticker := time.NewTicker(r.cfg.ReportEvery)
	defer ticker.Stop()
	producing, stop := context.WithCancel(ctx)
	defer stop()
	var ended chan struct{} // nil before the first act
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			return report(r.book.report(true))
		case <-ticker.C:
			if err := report(r.book.report(false)); err != nil {
				return err
			}
		case c, ok := <-commands:
			switch {
			case !ok:
				return errors.New("commands ended without stop")
			case c.Stop:
				stop()
				commands = nil
			default:
				r.begin(c)
			}
			if ended == nil {
				ended = make(chan struct{})
				go func() {
					defer close(ended)
					r.produce(ctx, producing)
				}()
			}
		}
	}
}

// begin starts an act.
func (r *Runner) begin(c Command) {
	a := &act{tally: r.book.act(c.Act), transfer: time.Duration(c.TransferMillis) * time.Millisecond}
	if c.EndsInMillis > 0 {
		a.ends = time.Now().Add(time.Duration(c.EndsInMillis) * time.Millisecond)
	}
	r.act.Store(a)
}

// transferTime returns how long a transfer that begins now should take.
func (a *act) transferTime(now time.Time) time.Duration {
	if a.ends.IsZero() {
		return a.transfer
	}
	left := a.ends.Sub(now)
	if left < 0 {
		return min(a.transfer, lateTransfer)
	}
	return max(shortestTransfer, min(a.transfer, left))
}

// produce begins operations until producing ends, and returns when the last
// has ended. Operations themselves are bounded by ctx and their timeouts.
func (r *Runner) produce(ctx, producing context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { r.every(ctx, producing, r.cfg.Connects, r.cfg.HTTP, r.connectOnce) })
	wg.Go(func() { r.every(ctx, producing, r.cfg.Flows, r.cfg.UDP, r.flow) })
	for i := range r.cfg.Transfers {
		if len(r.cfg.HTTP) == 0 {
			break
		}
		target := r.cfg.HTTP[i%len(r.cfg.HTTP)]
		wg.Go(func() { r.transferAgain(ctx, producing, target) })
	}
	wg.Wait()
}

// every begins op rate times per second, on the targets in turn.
func (r *Runner) every(ctx, producing context.Context, rate int, targets []string, op func(context.Context, string)) {
	if rate <= 0 || len(targets) == 0 {
		return
	}
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := 0; ; i++ {
		select {
		case <-producing.Done():
			return
		case <-ticker.C:
		}
		select {
		case <-producing.Done():
			return
		case r.open <- struct{}{}:
		}
		wg.Go(func() {
			defer func() { <-r.open }()
			op(ctx, targets[i%len(targets)])
		})
	}
}

// transferAgain keeps one transfer from target running.
func (r *Runner) transferAgain(ctx, producing context.Context, target string) {
	pause := time.NewTicker(100 * time.Millisecond)
	defer pause.Stop()
	for producing.Err() == nil {
		if r.transfer(ctx, target) {
			continue
		}
		select { // do not turn an outage into a flood
		case <-pause.C:
		case <-producing.Done():
		}
	}
}

// id returns a number no other operation of the Runner has.
func (r *Runner) id() uint64 { return r.next.Add(1) }
