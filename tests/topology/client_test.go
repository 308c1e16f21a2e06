package topology

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/load"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// transferMillis is how long the transfers of a client take, one after the other.
const transferMillis = 800

// client is a process that keeps the service of a world under load.
type client struct {
	*process
	w    *world
	load *suite.Client
}

// startClient starts load of all kinds on virtual addresses and node ports.
func (w *world) startClient() *client {
	w.Helper()
	cfg := load.DefaultConfig()
	cfg.HTTP, cfg.UDP = w.targets()
	// A busy machine is slow, but loses nothing.
	cfg.Connects, cfg.Flows = 50, 20
	cfg.RequestTimeout, cfg.DatagramTimeout, cfg.StallTimeout = patience/2, patience/2, patience/2
	cfg.ReportEvery = 50 * time.Millisecond
	running, err := suite.StartClient(w.lab.Client, cfg)
	if err != nil {
		w.Fatal(err)
	}
	c := &client{process: &process{t: w.T, Process: running.Process, out: running.Said}, w: w, load: running}
	c.tell(load.Command{Act: "all", TransferMillis: transferMillis})
	return c
}

func (w *world) targets() (http, udp []string) {
	vip4, vip6 := lab.DefaultVIPs()
	for _, vip := range []netip.Addr{vip4, vip6} {
		http = append(http, netip.AddrPortFrom(vip, httpPort).String())
		udp = append(udp, netip.AddrPortFrom(vip, echoPort).String())
	}
	for _, node := range []netip.Addr{w.entry.Addr4, w.entry.Addr6} {
		http = append(http, netip.AddrPortFrom(node, httpNodePort).String())
		udp = append(udp, netip.AddrPortFrom(node, echoNodePort).String())
	}
	return http, udp
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

// finish ends the load and fails the test if any operation has failed.
func (c *client) finish() load.Report {
	c.w.Helper()
	c.tell(load.Command{Stop: true})
	if code := c.wait(); code != 0 {
		c.w.Errorf("client: exit code %d\n%s", code, c.out)
	}
	if err := c.load.CloseCommands(); err != nil {
		c.w.Error(err)
	}
	var r load.Report
	c.w.poll("the final report", func() bool { r = c.load.Last(); return r.Final })
	for _, f := range r.Failures {
		c.w.Errorf("failed: %+v", f)
	}
	return r
}

// poll waits until ok.
func (w *world) poll(what string, ok func() bool) {
	w.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			w.Fatalf("waited for %s", what)
		}
	}
}
