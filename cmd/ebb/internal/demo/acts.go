package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ebb-lb/ebb/tests/lab/load"
)

// drainedTransfer is how long transfers take at most while pods are replaced:
// each of them is waited for.
const drainedTransfer = 1500 * time.Millisecond

const statusEvery = 250 * time.Millisecond

// actRecord is what happened in an act, besides its load.
type actRecord struct {
	podsReplaced int
	agentDown    time.Duration
}

// times divide the duration of the demo.
type times struct {
	steady, rolling, killed, pods time.Duration
	// The act without an agent: with it, without it, with the next one.
	before, down time.Duration
}

func divide(total time.Duration) times {
	t := times{steady: total / 8, rolling: total / 2, pods: total / 8}
	t.killed = total - t.steady - t.rolling - t.pods
	t.before, t.down = t.killed/5, t.killed/2
	return t
}

// act is one act: its load, and what happens meanwhile.
type act struct {
	name     string
	lasts    time.Duration // at least
	transfer time.Duration
	bounded  bool // it lasts no longer
	by       *client
	play     func(context.Context, *actRecord) error
}

func (s *show) acts() []act {
	t := divide(s.cfg.Duration)
	return []act{
		{name: "steady state", by: s.client, lasts: t.steady, transfer: t.steady, bounded: true,
			play: func(context.Context, *actRecord) error { return nil }},
		{name: "rolling update of every pod", by: s.client, lasts: t.rolling, transfer: min(drainedTransfer, t.rolling/8),
			play: func(ctx context.Context, r *actRecord) error { return s.rollingUpdate(ctx, t.rolling, r) }},
		{name: "agent killed", by: s.client, lasts: t.killed, transfer: t.killed, bounded: true,
			play: func(ctx context.Context, r *actRecord) error { return s.killAgent(ctx, t, r) }},
		{name: "pod to service", by: s.visitor, lasts: t.pods, transfer: min(drainedTransfer, t.pods/8),
			play: func(ctx context.Context, r *actRecord) error { return s.replaceOne(ctx, r) }},
	}
}

func (s *show) playActs(ctx context.Context) error {
	stop := s.showStatus(ctx)
	defer stop()
	acts := s.acts()
	for i, a := range acts {
		s.out.event("act %d/%d: %s", i+1, len(acts), a.name)
		if err := s.playAct(ctx, a); err != nil {
			return fmt.Errorf("act %s: %w", a.name, err)
		}
	}
	return nil
}

func (s *show) playAct(ctx context.Context, a act) error {
	cmd := load.Command{Act: a.name, TransferMillis: a.transfer.Milliseconds()}
	if a.bounded {
		cmd.EndsInMillis = a.lasts.Milliseconds()
	}
	began := time.Now()
	if err := a.by.tell(cmd); err != nil {
		return err
	}
	var r actRecord
	if err := a.play(ctx, &r); err != nil {
		return err
	}
	s.record = append(s.record, r)
	return pause(ctx, a.lasts-time.Since(began))
}

// rollingUpdate replaces every pod, one after the other, at even intervals if
// draining takes no longer.
func (s *show) rollingUpdate(ctx context.Context, total time.Duration, r *actRecord) error {
	var olds []*member
	for _, m := range s.cast {
		if m.life == ready {
			olds = append(olds, m)
		}
	}
	interval := total / time.Duration(len(olds))
	for _, m := range olds {
		began := time.Now()
		if err := s.replace(ctx, m); err != nil {
			return err
		}
		r.podsReplaced++
		if err := pause(ctx, interval-time.Since(began)); err != nil {
			return err
		}
	}
	return nil
}

// replaceOne replaces one pod.
func (s *show) replaceOne(ctx context.Context, r *actRecord) error {
	i := slices.IndexFunc(s.cast, func(m *member) bool { return m.life == ready })
	r.podsReplaced = 1
	return s.replace(ctx, s.cast[i])
}

// killAgent kills the agent of the node where all load enters, leaves the node
// without one for a while, and starts another.
func (s *show) killAgent(ctx context.Context, t times, r *actRecord) error {
	if err := pause(ctx, t.before); err != nil {
		return err
	}
	node := s.network.Nodes[0]
	old := s.agents[node.Name()]
	if err := old.kill(); err != nil {
		return err
	}
	began := time.Now()
	s.out.event("%s killed (SIGKILL, pid %d); the load goes on", old.name, old.PID())
	if err := pause(ctx, t.down); err != nil {
		return err
	}
	fresh, err := s.startAgent(node)
	if err != nil {
		return err
	}
	s.agents[node.Name()] = fresh
	if err := fresh.awaitReady(ctx); err != nil {
		return err
	}
	r.agentDown = time.Since(began)
	s.out.event("%s is back and ready after %s", fresh.name, r.agentDown.Round(10*time.Millisecond))
	return nil
}

// showStatus keeps telling how the load fares until stop is called.
func (s *show) showStatus(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	clients := []*client{s.client, s.visitor}
	go func() {
		defer close(done)
		for pause(ctx, statusEvery) == nil {
			s.out.status(statusLine(clients))
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func statusLine(clients []*client) string {
	var requests, failed int
	for _, c := range clients {
		r, err := c.reports.last()
		if err != nil {
			continue // told at the end
		}
		for _, a := range r.Acts {
			n, f := a.Totals()
			requests, failed = requests+n, failed+f
		}
	}
	return fmt.Sprintf("%d requests, %d failed", requests, failed)
}
