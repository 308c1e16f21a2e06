package demo

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync/atomic"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
)

// podsPerNode pods run on each node at any time.
const podsPerNode = 2

// show is the state of a running demo. Only the goroutine of Run uses it,
// except for what says otherwise.
type show struct {
	cfg       Config
	network   *lab.Lab
	manifests manifests
	out       *progress
	abort     context.CancelCauseFunc // safe for concurrent use

	agents map[string]*agent // by node
	cast   []*member         // all pods ever started, in order
	client *client           // outside
	// visitor is a client in a pod. Its connections never meet an uplink's programs
	// untranslated: its sockets dial pods.
	visitor *client
	record  []actRecord
}

// child is a process of the demo that must not end by itself.
type child struct {
	*lab.Process
	name     string
	log      *tail
	expected atomic.Bool // its end is
}

// start starts a subcommand of the ebb binary in ns. Should the child end
// before it is expected to, the show is aborted.
func (s *show) start(ns *lab.NS, name string, args []string, prepare func(*exec.Cmd)) (*child, error) {
	cmd := exec.Command(s.cfg.Executable, args...)
	c := &child{name: name, log: newTail()}
	cmd.Stderr = c.log
	if prepare != nil {
		prepare(cmd)
	}
	p, err := ns.Start(cmd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	c.Process = p
	go func() {
		<-p.Done()
		if !c.expected.Load() {
			s.abort(c.ended())
		}
	}()
	return c, nil
}

// ended describes the end of a child that has ended.
func (c *child) ended() error {
	err := c.Err()
	if err == nil {
		err = errors.New("exit status 0")
	}
	return fmt.Errorf("%s has ended: %w%s", c.name, err, c.log)
}

// setUp builds everything up to the point where load can begin.
func (s *show) setUp(ctx context.Context) error {
	if err := s.manifests.writeCluster(s.network.Nodes); err != nil {
		return err
	}
	if err := s.startPods(ctx); err != nil {
		return err
	}
	if err := s.publish(); err != nil {
		return err
	}
	s.agents = map[string]*agent{}
	for _, n := range s.network.Nodes {
		a, err := s.startAgent(n)
		if err != nil {
			return err
		}
		s.agents[n.Name()] = a
	}
	for _, n := range s.network.Nodes {
		if err := s.agents[n.Name()].awaitReady(ctx); err != nil {
			return err
		}
	}
	s.out.event("agents of %d nodes are ready", len(s.agents))
	return s.startClients()
}

// startPods starts the first pods, spread over the nodes, and waits for them.
func (s *show) startPods(ctx context.Context) error {
	for range podsPerNode {
		for _, n := range s.network.Nodes {
			if _, err := s.startPod(n); err != nil {
				return err
			}
		}
	}
	for _, m := range s.cast {
		if err := m.awaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// publish tells the agents about the pods as they are now.
func (s *show) publish() error {
	var eps []endpoint
	for _, m := range s.cast {
		if e, ok := m.endpoint(); ok {
			eps = append(eps, e)
		}
	}
	return s.manifests.writeEndpoints(eps)
}

// pause waits for d, or until ctx ends, and returns why it has not waited.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
