package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/pprof"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/ebb-lb/ebb/agent/apply"
	"github.com/ebb-lb/ebb/agent/health"
	"github.com/ebb-lb/ebb/agent/maglev"
	"github.com/ebb-lb/ebb/agent/plan"
	"github.com/ebb-lb/ebb/agent/reconcile"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// patience is how long the first sync, and each change, may take.
const patience = 5 * time.Minute

// sizes has room for the cluster and for what waits to be used again.
func (s size) sizes() maps.Sizes {
	waiting := int(2*plan.Grace/time.Second) * s.rate
	return maps.Sizes{
		Frontends: uint32(2 * s.services), ServicePorts: uint32(2 * s.services),
		Backends: uint32(s.services*s.endpoints + waiting), Slots: uint32(s.services+waiting) * maglev.Size(s.endpoints),
		Flows: 1024, HalfOpen: 1024, Closed: 1024, Affinity: 1024, SourceRanges: 1024,
	}
}

// bench is one loop on maps of its own, and what it reported.
type bench struct {
	*cluster
	set      *maps.Set
	recorder *recorder // nil: nothing is recorded
	feed     feed
	done     chan reconcile.Report

	mu      sync.Mutex
	emitted map[service.Name]time.Time // not in the maps yet
	took    []time.Duration
}

// measure returns one row.
func measure(ctx context.Context, s size, name string) (r row, err error) {
	set, err := maps.Create(s.sizes())
	if err != nil {
		return row{}, err
	}
	defer func() { err = errors.Join(err, set.Close()) }()
	b := &bench{cluster: newCluster(s), set: set, done: make(chan reconcile.Report, 1), emitted: make(map[service.Name]time.Time)}
	store := service.NewStore(time.Now)
	b.feed = &direct{b.cluster, store}
	switch name {
	case "store":
	case "informers":
		b.feed = newInformed(b.cluster, store)
	case "floor":
		b.recorder = &recorder{}
	default:
		return row{}, fmt.Errorf("there is no row %q", name)
	}
	return b.run(ctx, name, store)
}

// run starts the loop and its source, and has them work.
func (b *bench) run(ctx context.Context, name string, store *service.Store) (row, error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 2)
	begin, cpu := time.Now(), cpuTime()
	loop, err := b.loop(store)
	if err != nil {
		cancel()
		return row{}, err
	}
	go func() { ended <- b.feed.run(ctx) }()
	go func() { ended <- loop.Run(ctx) }()
	r := row{Name: name}
	err = b.work(&r, begin, cpu)
	cancel()
	return r, errors.Join(err, <-ended, <-ended)
}

func (b *bench) loop(store *service.Store) (*reconcile.Loop, error) {
	targets := apply.Targets{
		Frontends: b.set.Frontends(), ServicePorts: b.set.ServicePorts(), Backends: b.set.Backends(), Slots: b.set.Slots(),
		SourceRanges: b.set.SourceRanges(), Addresses: b.set.Addresses(maps.ServiceAddress),
	}
	if b.recorder != nil {
		targets = b.recorder.record(b.set)
	}
	size := b.set.Sizes()
	return reconcile.New(reconcile.Config{
		NodeName: nodeName, MinInterval: b.interval,
		Capacities: plan.Capacities{Frontends: size.Frontends, ServicePorts: size.ServicePorts, Backends: size.Backends, Slots: size.Slots, SourceRanges: size.SourceRanges},
	}, reconcile.Parts{
		PodLinks: func(bool) {},
		Store:    store, Maps: targets, Runtime: b.set.Runtime(), ServiceCIDRs: b.set.ServiceCIDRs(),
		Attach: func(reconcile.NodeNet) error { return nil },
		Live:   func(maps.BackendID) int { return 0 },
		Health: &health.State{Timeout: time.Minute, Now: time.Now},
		Done:   b.synced,
		Log:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
}

// synced notes how long what is in the maps now took to get there.
func (b *bench) synced(r reconcile.Report) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, v := range r.Services {
		if at, waits := b.emitted[v.Name]; waits && r.Failed[v.Name] == nil {
			b.took = append(b.took, r.End.Sub(at))
			delete(b.emitted, v.Name)
		}
	}
	select {
	case b.done <- r:
	default: // nobody waits for this one
	}
}

// work measures the first sync, then changes.
func (b *bench) work(r *row, begin time.Time, cpu time.Duration) error {
	select {
	case first := <-b.done:
		if first.Err != nil {
			return first.Err
		}
		r.First, r.CPU = first.End.Sub(begin), cpuTime()-cpu
	case <-time.After(patience):
		return errors.New("no first sync")
	}
	if b.recorder != nil {
		b.recorder.split()
	}
	if err := b.changes(r); err != nil {
		return err
	}
	r.RSS = maxRSS()
	if b.recorder != nil {
		return b.recorder.replay(b.size, r)
	}
	return nil
}

// changes has endpoints change, and waits until all that did are in the maps.
func (b *bench) changes(r *row) error {
	begin, cpu := time.Now(), cpuTime()
	tick := time.NewTicker(time.Second / time.Duration(b.rate))
	defer tick.Stop()
	for time.Since(begin) < b.lasting {
		<-tick.C
		b.emit()
	}
	r.ChangeCPU = (cpuTime() - cpu)
	r.Load = float64(r.ChangeCPU) / float64(time.Since(begin))
	for deadline := time.After(patience); b.waiting() > 0; {
		select {
		case <-b.done:
		case <-deadline:
			return fmt.Errorf("%d changes are not in the maps", b.waiting())
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.Sort(b.took)
	r.Changes = len(b.took)
	r.ChangeCPU /= time.Duration(r.Changes)
	r.P50, r.P99, r.Most = b.took[r.Changes/2], b.took[r.Changes*99/100], b.took[r.Changes-1]
	return nil
}

// emit delivers one change. Of several to one service the first counts.
func (b *bench) emit() {
	i := b.change()
	b.mu.Lock()
	if name := b.name(i); b.emitted[name].IsZero() {
		b.emitted[name] = time.Now()
	}
	b.mu.Unlock()
	b.feed.changed(i)
}

func (b *bench) waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.emitted)
}

// cpuTime is what all threads have used so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// maxRSS is the most memory there was, in bytes.
func maxRSS() uint64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return uint64(u.Maxrss) << 10
}

// profiled begins a CPU profile, if path is not empty, until stop.
func profiled(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { pprof.StopCPUProfile(); _ = f.Close() }, nil
}
