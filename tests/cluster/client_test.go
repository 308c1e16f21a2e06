package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/load"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// transferMillis is how long transfers take, one after the other.
const transferMillis = 800

// loadBound is how long a busy machine may take for one operation. It is slow,
// but loses nothing.
const loadBound = patience / 2

// client keeps addresses under load.
type client struct {
	*suite.Client
	kinds []load.Kind // that there are
}

// startClient starts load of all kinds on these addresses, in an act of this
// name. There may be no addresses for UDP.
func startClient(ns *lab.NS, http, udp []string, act string) (*client, error) {
	cfg := load.DefaultConfig()
	cfg.HTTP, cfg.UDP = http, udp
	cfg.Connects, cfg.Flows, cfg.Transfers = 40, 10, 4
	cfg.RequestTimeout, cfg.DatagramTimeout, cfg.StallTimeout = loadBound, loadBound, loadBound
	running, err := suite.StartClient(ns, cfg)
	if err != nil {
		return nil, err
	}
	c := &client{Client: running, kinds: []load.Kind{load.TCP, load.Transfer}}
	if len(udp) > 0 {
		c.kinds = append(c.kinds, load.UDP)
	}
	return c, c.begin(act)
}

// begin makes what begins from now on part of another act.
func (c *client) begin(act string) error {
	return c.Tell(load.Command{Act: act, TransferMillis: transferMillis})
}

// act returns how many operations of an act have ended, by kind, and the
// failures among them.
func (c *client) act(name string) (ended map[load.Kind]int, failed []load.Failure) {
	r := c.Last()
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
				return fmt.Errorf("%d more operations of each kind: before %v, now %v\n%s", n, before, now, c.Said)
			}
		}
		return nil
	})
}

// finish ends the load and returns the last report.
func (c *client) finish(ctx context.Context) (load.Report, error) {
	if err := c.Tell(load.Command{Stop: true}); err != nil {
		return load.Report{}, fmt.Errorf("client: %w\n%s", err, c.Said)
	}
	err := await(ctx, patience, func() error {
		if !c.Last().Final {
			return fmt.Errorf("no final report\n%s", c.Said)
		}
		return nil
	})
	return c.Last(), errors.Join(err, c.CloseCommands())
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
