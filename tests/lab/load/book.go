package load

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Kind is a kind of operation.
type Kind string

// The kinds of operations: a new connection with one request, a connection
// with a transfer, a datagram with its answer.
const (
	TCP      Kind = "tcp"
	Transfer Kind = "transfer"
	UDP      Kind = "udp"
)

// maxFailures is how many failures are told in full; all are counted.
const maxFailures = 50

// outcome is how one operation ended.
type outcome struct {
	kind   Kind
	target string
	pod    string // empty: unknown
	took   time.Duration
	err    error
}

// tally counts what began in one act. It belongs to a book.
type tally struct {
	name  string
	kinds map[Kind]*count
}

type count struct {
	requests, failed int
	latency          histogram
}

// book keeps the tallies. Safe for concurrent use.
type book struct {
	mu       sync.Mutex
	began    time.Time
	acts     []*tally
	pods     map[string]*PodReport
	failures []Failure
}

func newBook() *book { return &book{began: time.Now(), pods: map[string]*PodReport{}} }

// act opens a tally.
func (b *book) act(name string) *tally {
	t := &tally{name: name, kinds: map[Kind]*count{TCP: {}, Transfer: {}, UDP: {}}}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.acts = append(b.acts, t)
	return t
}

func (b *book) add(t *tally, o outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := t.kinds[o.kind]
	c.requests++
	if o.err != nil {
		c.failed++
		b.fail(t, o)
	} else {
		c.latency.add(o.took)
	}
	if o.pod != "" {
		b.credit(o)
	}
}

func (b *book) fail(t *tally, o outcome) {
	if len(b.failures) >= maxFailures {
		return
	}
	b.failures = append(b.failures, Failure{
		Act: t.name, Kind: o.kind, Target: o.target, Pod: o.pod,
		AtMillis: time.Since(b.began).Milliseconds(), Error: o.err.Error(),
	})
}

func (b *book) credit(o outcome) {
	p := b.pods[o.pod]
	if p == nil {
		p = &PodReport{Pod: o.pod}
		b.pods[o.pod] = p
	}
	switch o.kind {
	case TCP:
		p.Connections++
	case Transfer:
		p.Transfers++
	case UDP:
		p.Datagrams++
	}
}

// report returns a copy of everything.
func (b *book) report(final bool) Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := Report{Final: final, BeganMillis: b.began.UnixMilli(), Failures: slices.Clone(b.failures)}
	for _, t := range b.acts {
		a := ActReport{Name: t.name, Kinds: map[Kind]KindReport{}}
		for kind, c := range t.kinds {
			a.Kinds[kind] = KindReport{
				Requests: c.requests, Failed: c.failed,
				P50Micros: c.latency.quantile(0.5).Microseconds(),
				P99Micros: c.latency.quantile(0.99).Microseconds(),
			}
		}
		r.Acts = append(r.Acts, a)
	}
	for _, p := range b.pods {
		r.Pods = append(r.Pods, *p)
	}
	slices.SortFunc(r.Pods, func(a, b PodReport) int { return cmp.Compare(a.Pod, b.Pod) })
	return r
}
