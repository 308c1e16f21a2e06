package demo

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/lab"
)

const (
	agentBPFFS      = lab.BPFFS + "/ebb"
	agentMetrics    = "127.0.0.1:10249"
	agentHealth     = "127.0.0.1:10256"
	agentStartBound = 20 * time.Second
	agentStopBound  = 3 * time.Second
)

// agent is the agent of one node.
type agent struct {
	*child
	node *lab.Node
	// startBound is how long it may take to be ready.
	startBound time.Duration
}

func (s *show) startAgent(n *lab.Node) (*agent, error) {
	c, err := s.start(n.NS, "agent of "+n.Name(), []string{
		"agent", "--source", "dir:" + s.manifests.dir, "--node-name", n.Name(),
		"--uplink", lab.Uplink, "--cgroup-root", lab.CgroupRoot, "--xdp", s.cfg.XDP, "--bpffs", agentBPFFS,
		"--metrics-addr", agentMetrics, "--health-addr", agentHealth,
		// Nothing may outlive the demo, nor come from the machine it is on.
		"--health-responder", "off", "--state-dir", filepath.Join(s.manifests.dir, ".state-"+n.Name()),
	}, nil)
	if err != nil {
		return nil, err
	}
	return &agent{child: c, node: n, startBound: s.cfg.patience(agentStartBound)}, nil
}

// awaitReady waits until the agent says that everything is in the kernel.
func (a *agent) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.startBound)
	defer cancel()
	return awaitOK(ctx, a.node.NS, "http://"+agentHealth+"/healthz", a.child)
}

// kill ends the agent as a crash would (SIGKILL).
func (a *agent) kill() error {
	a.expected.Store(true)
	return a.Kill()
}

// stopAgents ends the agents in good order.
func (s *show) stopAgents(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.patience(agentStopBound))
	defer cancel()
	var errs []error
	for _, a := range s.agents {
		a.expected.Store(true)
		errs = append(errs, a.Stop(ctx))
	}
	return errors.Join(errs...)
}

// readPackets reads the counters in the agents' maps.
func (s *show) readPackets() (Packets, error) {
	all := Packets{}
	for name, a := range s.agents {
		err := a.node.Do(func() error {
			set, err := maps.Open(loader.MapsDir(agentBPFFS), true)
			if err != nil {
				return err
			}
			counters, err := set.Counters().All()
			all.add(name, counters)
			return errors.Join(err, set.Close())
		})
		if err != nil {
			return nil, fmt.Errorf("read counters of %s: %w", name, err)
		}
	}
	return all, nil
}
