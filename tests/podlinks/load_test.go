package podlinks

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/load"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// client is a process that keeps services under load.
type client struct {
	*process
	w    *world
	load *suite.Client
}

// startLoad asks at addrs from inside ns, all the time.
func (w *world) startLoad(ns *lab.NS, addrs ...netip.Addr) *client {
	w.Helper()
	cfg := load.DefaultConfig()
	for _, a := range addrs {
		cfg.HTTP = append(cfg.HTTP, netip.AddrPortFrom(a, httpPort).String())
		cfg.UDP = append(cfg.UDP, netip.AddrPortFrom(a, echoPort).String())
	}
	// A busy machine is slow, but loses nothing.
	cfg.Connects, cfg.Transfers, cfg.Flows = 50, 4, 20
	cfg.RequestTimeout, cfg.StallTimeout = patience/2, patience/2
	cfg.DatagramTimeout = patience / 6 // of which a flow has four
	cfg.ReportEvery = 50 * time.Millisecond
	running, err := suite.StartClient(ns, cfg)
	if err != nil {
		w.Fatal(err)
	}
	c := &client{process: &process{Process: running.Process, out: running.Said}, w: w, load: running}
	const transferMillis = 800
	c.tell(load.Command{Act: "all", TransferMillis: transferMillis})
	return c
}

func (c *client) tell(cmd load.Command) {
	c.w.Helper()
	if err := c.load.Tell(cmd); err != nil {
		c.w.Fatal(err)
	}
}

// awaitMore waits until n more operations of each kind have ended.
func (c *client) awaitMore(n int) {
	c.w.Helper()
	before := suite.Requests(c.load.Last())
	c.w.await(fmt.Sprint(n, " more operations of each kind"), c.process, func() error {
		now := suite.Requests(c.load.Last())
		for _, kind := range []load.Kind{load.TCP, load.Transfer, load.UDP} {
			if now[kind] < before[kind]+n {
				return fmt.Errorf("before %v, now %v", before, now)
			}
		}
		return nil
	})
}

// finish ends the load and fails the test if any operation has failed. It returns
// which pods have answered.
func (c *client) finish() map[string]bool {
	c.w.Helper()
	c.tell(load.Command{Stop: true})
	select {
	case <-c.load.Told():
	case <-time.After(patience):
		c.w.Fatalf("the load does not end\n%s", c.out)
	}
	if err := c.load.CloseCommands(); err != nil {
		c.w.Error(err)
	}
	r := c.load.Last()
	if !r.Final {
		c.w.Errorf("the load has not ended of itself\n%s", c.out)
	}
	for _, f := range r.Failures {
		c.w.Errorf("failed: %+v", f)
	}
	answered := map[string]bool{}
	for _, p := range r.Pods {
		answered[p.Pod] = true
	}
	return answered
}

// Pods and strangers use the same backends at the same time, while these are
// replaced and agents die.
func TestPodsAndStrangersLoseNothing(t *testing.T) {
	inEach(t, func(w *world) {
		clients := []*client{
			w.startLoad(w.asker.NS, w.all.addrs()...),
			w.startLoad(w.far.NS, w.all.cluster4, w.all.cluster6),
			w.startLoad(w.lab.Client, w.all.vip4, w.all.vip6),
		}
		meanwhile := func(n int) {
			for _, c := range clients {
				c.awaitMore(n)
			}
		}
		meanwhile(5)
		for _, n := range w.lab.Nodes {
			if err := w.agents[n].Kill(); err != nil {
				w.Fatal(err)
			}
		}
		meanwhile(5)
		for _, n := range w.lab.Nodes {
			w.startAgent(n)
			w.awaitReady(n)
		}
		meanwhile(5)
		const updates = 3
		backends := []*lab.Pod{w.asker, w.near, w.far}
		for i := range updates {
			backends = append(backends[1:], w.addPod(w.lab.Nodes[i%2], fmt.Sprint("new-", i)))
			w.publish(w.all, backends...)
			meanwhile(5)
		}
		for _, c := range clients {
			answered := c.finish()
			for _, name := range []string{"asker", "near", "far", "new-0", "new-1"} {
				if !answered[name] {
					w.Errorf("%s has never answered: %v", name, answered)
				}
			}
		}
	})
}
