package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/load"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// transferMillis is how long transfers take, one after the other.
const transferMillis = 800

// loadBound is how long a busy machine may take for one operation. It is slow,
// but loses nothing.
const loadBound = patience / 2

// client is a process that keeps addresses under load.
type client struct {
	*lab.Process
	log      *suite.Output
	commands *os.File
	kinds    []load.Kind // that there are

	mu     sync.Mutex
	report load.Report
}

// startClient starts load of all kinds on these addresses, in an act of this
// name. There may be no addresses for UDP.
func startClient(ns *lab.NS, http, udp []string, act string) (*client, error) {
	cfg := load.DefaultConfig()
	cfg.HTTP, cfg.UDP = http, udp
	cfg.Connects, cfg.Flows, cfg.Transfers = 40, 10, 4
	cfg.RequestTimeout, cfg.DatagramTimeout, cfg.StallTimeout = loadBound, loadBound, loadBound
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	in, commands, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	reports, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	c := &client{log: &suite.Output{}, commands: commands, kinds: []load.Kind{load.TCP, load.Transfer}}
	if len(udp) > 0 {
		c.kinds = append(c.kinds, load.UDP)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), loadEnv+"="+string(text))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, c.log
	if c.Process, err = ns.Start(cmd); err != nil {
		return nil, err
	}
	go c.read(reports)
	return c, c.begin(act)
}

// read keeps the last report, until the process ends.
func (c *client) read(reports *os.File) {
	defer reports.Close()
	d := json.NewDecoder(reports)
	for {
		var r load.Report
		if d.Decode(&r) != nil {
			return
		}
		c.mu.Lock()
		c.report = r
		c.mu.Unlock()
	}
}

func (c *client) last() load.Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.report
}

// begin makes what begins from now on part of another act.
func (c *client) begin(act string) error {
	return load.WriteLine(c.commands, load.Command{Act: act, TransferMillis: transferMillis})
}

// act returns how many operations of an act have ended, by kind, and the
// failures among them.
func (c *client) act(name string) (ended map[load.Kind]int, failed []load.Failure) {
	r := c.last()
	ended = map[load.Kind]int{}
	for _, a := range r.Acts {
		for kind, k := range a.Kinds {
			if a.Name == name {
				ended[kind] += k.Requests
			}
		}
	}
	return ended, slices.DeleteFunc(slices.Clone(r.Failures), func(f load.Failure) bool { return f.Act != name })
}

// awaitMore waits until n more operations of each kind have ended.
func (c *client) awaitMore(ctx context.Context, act string, n int) error {
	before, _ := c.act(act)
	return await(ctx, patience, func() error {
		now, _ := c.act(act)
		for _, kind := range c.kinds {
			if now[kind] < before[kind]+n {
				return fmt.Errorf("%d more operations of each kind: before %v, now %v\n%s", n, before, now, c.log)
			}
		}
		return nil
	})
}

// finish ends the load and returns the last report.
func (c *client) finish(ctx context.Context) (load.Report, error) {
	if err := load.WriteLine(c.commands, load.Command{Stop: true}); err != nil {
		return load.Report{}, fmt.Errorf("client: %w\n%s", err, c.log)
	}
	err := await(ctx, patience, func() error {
		if !c.last().Final {
			return fmt.Errorf("no final report\n%s", c.log)
		}
		return nil
	})
	return c.last(), errors.Join(err, c.commands.Close())
}

// close ends the load; any failure in it is an error.
func (c *client) close() error {
	r, err := c.finish(context.Background())
	errs := []error{err}
	for _, f := range r.Failures {
		errs = append(errs, fmt.Errorf("load of the whole run: %+v", f))
	}
	return errors.Join(errs...)
}
