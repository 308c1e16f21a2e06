package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

const (
	healthAddr  = "127.0.0.1:10256"
	metricsAddr = "127.0.0.1:10249"
	// loading bounds how long an agent takes until all is in the kernel.
	loading   = 2 * time.Minute
	lookEvery = 20 * time.Millisecond
	// ending bounds how long an agent takes to end.
	ending = 10 * time.Second
)

// installAgent returns what starts an agent of the binary, with this value of
// --xdp, and waits until it is ready. The agent runs on while its contender, and
// others, take their turns.
func installAgent(binary, xdp string) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		dir, err := os.MkdirTemp("", "ebb-net-")
		if err != nil {
			return err
		}
		w.cleanups = append(w.cleanups, func() error { return os.RemoveAll(dir) })
		source := filepath.Join(dir, "source")
		if err := os.Mkdir(source, 0o700); err != nil {
			return err
		}
		text := manifests(w.node, clusterServices(w))
		if err := os.WriteFile(filepath.Join(source, "cluster.yaml"), []byte(text), 0o600); err != nil {
			return err
		}
		said := &suite.Output{}
		cmd := exec.Command(binary, "agent", "--source", "dir:"+source, "--node-name", w.node.Name(),
			"--uplink", lab.Uplink, "--xdp", xdp, "--bpffs", lab.BPFFS+"/ebb", "--cgroup-root", lab.CgroupRoot,
			"--state-dir", filepath.Join(dir, "state"), "--health-addr", healthAddr, "--health-responder", "off",
			"--metrics-addr", metricsAddr)
		cmd.Stdout, cmd.Stderr = said, said
		agent, err := w.node.Start(cmd)
		if err != nil {
			return err
		}
		w.cleanups = append(w.cleanups, func() error {
			ctx, cancel := context.WithTimeout(context.Background(), ending)
			defer cancel()
			return agent.Stop(ctx)
		})
		if err := awaitHealth(ctx, w.node.NS, agent); err != nil {
			return fmt.Errorf("%w\n%s", err, said)
		}
		return nil
	}
}

func awaitHealth(ctx context.Context, ns *lab.NS, agent *lab.Process) error {
	ctx, cancel := context.WithTimeout(ctx, loading)
	defer cancel()
	again := time.NewTicker(lookEvery)
	defer again.Stop()
	for {
		err := healthy(ctx, ns)
		if err == nil {
			return nil
		}
		select {
		case <-agent.Done():
			return fmt.Errorf("agent ended: %w", agent.Err())
		case <-ctx.Done():
			return fmt.Errorf("agent is not ready after %v: %w", loading, err)
		case <-again.C:
		}
	}
}

func healthy(ctx context.Context, ns *lab.NS) error {
	resp, err := get(ctx, ns, "http://"+healthAddr+"/healthz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("healthz: %s", resp.Status)
	}
	return nil
}

// get asks from inside ns.
func get(ctx context.Context, ns *lab.NS, url string) (*http.Response, error) {
	client := suite.HTTPClient(ns)
	client.Timeout = 5 * time.Second
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return client.Do(req)
}
