// Package demo shows ebb at its main job, on real traffic, without a cluster:
// in a lab of network namespaces two agents balance a service over pods, while
// a client keeps it under load. Every pod is replaced, the agent that the
// traffic enters by is killed and comes back, and what failed is counted.
//
// It knows manifests and the command line of "ebb agent". It deliberately
// knows nothing of how the agent works; it looks into the agent's counters
// once, at the end.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/load"
)

// MinDuration is the shortest demo in which every act can be played.
const MinDuration = 6 * time.Second

// MaxSlow is the largest Config.Slow: with more there is hardly any load left.
const MaxSlow = 20

// DefaultDuration leaves each act a few seconds.
const DefaultDuration = 24 * time.Second

// Config says what to show.
type Config struct {
	// Duration of the acts together; building the lab comes on top.
	Duration time.Duration
	// XDP is handed to the agents: "native", "generic" or "off".
	XDP string
	// Slow is how many times slower than an idle host the machine is: the load is
	// divided by it, the patience with everything multiplied. 0 means 1.
	Slow int
	// Progress gets text for people to follow, rewritten in place if Terminal is set.
	Progress io.Writer
	Terminal bool
	// Executable is the ebb binary; the one that runs, if it is empty.
	Executable string
}

// patience is how long to wait for what takes d at most on an idle host.
func (c Config) patience(d time.Duration) time.Duration { return d * time.Duration(max(1, c.Slow)) }

// XDPModes are the values of Config.XDP that make sense in a lab.
func XDPModes() []string { return []string{"native", "off", "generic"} }

// Run plays the demo and returns what it has counted. Whatever happens, also
// when ctx ends, it leaves no process, link, mount or file behind. An error
// means that the demo could not be played to its end; failures of the load are
// no error, but part of the Result.
func Run(ctx context.Context, cfg Config) (res Result, err error) {
	if cfg.Executable == "" {
		cfg.Executable = "/proc/self/exe"
	}
	if err := preflight(); err != nil {
		return Result{}, err
	}
	dir, err := os.MkdirTemp("", "ebb-demo-")
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	network, err := lab.New(ctx, labConfig(cfg.XDP))
	if err != nil {
		return Result{}, fmt.Errorf("build lab: %w", err)
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &show{
		cfg: cfg, network: network, out: newProgress(cfg.Progress, cfg.Terminal),
		manifests: manifests{dir: dir}, abort: cancel,
	}
	defer s.out.close()
	res, err = s.play(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause // what ended the show, rather than what it interrupted
	}
	return res, err
}

// labConfig makes links on which XDP can work where it is asked for.
func labConfig(xdp string) lab.Config {
	if xdp != "native" {
		return lab.Config{}
	}
	return lab.Config{UplinkPeer: lab.NativeXDPPeer()}
}

// play is the whole show, from an empty lab to the result.
func (s *show) play(ctx context.Context) (Result, error) {
	s.out.event("building: 2 nodes, %d pods, 1 client; XDP %s", podsPerNode*len(s.network.Nodes), s.cfg.XDP)
	if err := s.setUp(ctx); err != nil {
		return Result{}, fmt.Errorf("set up: %w", err)
	}
	if err := s.playActs(ctx); err != nil {
		return Result{}, err
	}
	var reports []load.Report // in the order of the acts
	for _, c := range []*client{s.client, s.visitor} {
		report, err := c.finish(ctx)
		if err != nil {
			return Result{}, err
		}
		reports = append(reports, report)
	}
	res := newResult(reports, s.record, s.cast)
	var err error
	if res.Packets, err = s.readPackets(); err != nil {
		return Result{}, err
	}
	return res, s.stopAgents(ctx)
}
