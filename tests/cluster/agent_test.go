package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

const (
	bpffs       = lab.BPFFS + "/ebb"
	metricsAddr = "127.0.0.1:10249"
	healthAddr  = "127.0.0.1:10256"
	// patience bounds everything that is waited for, unless said otherwise.
	patience   = 30 * time.Second
	probeEvery = 25 * time.Millisecond
	// writesMetric counts the writes of the agent that serves it.
	writesMetric = "ebb_map_writes_total"
	// completeMetric is when all that was known was in the maps.
	completeMetric = "ebb_complete_sync_timestamp_seconds"
	// reconnectBound is how long clients of an API server may take to come back to
	// it. Having failed often, they wait for up to a minute before they try again.
	reconnectBound = 90 * time.Second
)

// agent is the agent of one node.
type agent struct {
	*lab.Process
	node *lab.Node
	log  *suite.Output
}

// startAgent starts the agent of a node, in the place of one that has ended.
func (c *cluster) startAgent(n *lab.Node, kubeconfig string) (*agent, error) {
	a := &agent{node: n, log: &suite.Output{}}
	cmd := exec.Command(ebb, "agent", "--source", "kubernetes", "--kubeconfig", kubeconfig, "--node-name", n.Name(),
		"--uplink", lab.Uplink, "--cgroup-root", lab.CgroupRoot, "--xdp", "native", "--bpffs", bpffs, "--metrics-addr", metricsAddr, "--health-addr", healthAddr,
		// A responder would outlive the tests.
		"--health-responder", "off", "--state-dir", filepath.Join(c.dir, "state-"+n.Name()),
		"--max-frontends", "1024", "--max-backends", "1024", "--max-slots", "262144", "--max-flows", "65536", "--max-half-open", "65536")
	cmd.Stdout, cmd.Stderr = a.log, a.log
	var err error
	if a.Process, err = n.Start(cmd); err != nil {
		return nil, err
	}
	c.agents[n.Name()] = a
	return a, nil
}

// awaitReady waits until the agent says that all is in the kernel.
func (a *agent) awaitReady(ctx context.Context) error {
	return await(ctx, patience, func() error {
		select {
		case <-a.Done():
			return stop{a.failure()}
		default:
		}
		_, err := a.get(ctx, "http://"+healthAddr+"/healthz")
		if err != nil {
			return fmt.Errorf("agent of %s is not ready: %w\n%s", a.node.Name(), err, a.log)
		}
		return nil
	})
}

// failure is that the agent has ended.
func (a *agent) failure() error {
	return fmt.Errorf("agent of %s ended: %v\n%s", a.node.Name(), a.Err(), a.log)
}

// get asks the agent from its own node.
func (a *agent) get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, body, err := get(ctx, a.node.NS, url)
	return body, err
}

// metric returns the value of a metric, added up over its labels.
func (a *agent) metric(ctx context.Context, name string) (float64, error) {
	body, err := a.get(ctx, "http://"+metricsAddr+"/metrics")
	if err != nil {
		return 0, err
	}
	var sum float64
	err = fmt.Errorf("no metric %s", name)
	for line := range strings.Lines(body) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, _, _ := strings.Cut(series, "{"); n != name {
			continue
		}
		var v float64
		if v, err = strconv.ParseFloat(value, 64); err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, err
}

// contents reads the maps of a node, whether or not an agent runs.
func contents(n *lab.Node) (maps.Contents, error) {
	var all maps.Contents
	err := n.Do(func() (err error) {
		set, err := maps.Open(loader.MapsDir(bpffs), true)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, set.Close()) }()
		all, err = set.Contents()
		return err
	})
	return all, err
}

// get asks from inside ns and returns the headers and the body of an answer
// with status 200.
func get(ctx context.Context, ns *lab.NS, url string) (http.Header, string, error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return ns.Dial(ctx, network, addr)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %s: %s", url, resp.Status, body)
	}
	return resp.Header, string(body), err
}

// stop is an error that trying again does not help with.
type stop struct{ error }

// await tries until there is no error, at most as long as bound.
func await(ctx context.Context, bound time.Duration, try func() error) error {
	deadline := time.After(bound)
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		err := try()
		if final := (stop{}); err == nil || errors.As(err, &final) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-deadline:
			return fmt.Errorf("after %s: %w", bound, err)
		case <-tick.C:
		}
	}
}
