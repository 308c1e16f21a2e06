package topology

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"sync"
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
	w        *world
	commands *os.File

	mu     sync.Mutex
	report load.Report
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
	cmd, err := suite.LoadCommand(cfg)
	if err != nil {
		w.Fatal(err)
	}
	in, commands, err := os.Pipe()
	if err != nil {
		w.Fatal(err)
	}
	defer in.Close()
	reports, out, err := os.Pipe()
	if err != nil {
		w.Fatal(err)
	}
	defer out.Close()
	c := &client{process: &process{t: w.T, out: &output{}}, w: w, commands: commands}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, c.out
	if c.Process, err = w.lab.Client.Start(cmd); err != nil {
		w.Fatal(err)
	}
	go c.read(reports)
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

func (c *client) tell(cmd load.Command) {
	c.w.Helper()
	if err := load.WriteLine(c.commands, cmd); err != nil {
		c.w.Fatal(err)
	}
}

// awaitMore waits until n more operations of each kind have ended.
func (c *client) awaitMore(n int) {
	c.w.Helper()
	before := requests(c.last())
	c.w.await(fmt.Sprint(n, " more operations of each kind"), c.process, func() error {
		now := requests(c.last())
		for _, kind := range []load.Kind{load.TCP, load.Transfer, load.UDP} {
			if now[kind] < before[kind]+n {
				return fmt.Errorf("before %v, now %v", before, now)
			}
		}
		return nil
	})
}

func requests(r load.Report) map[load.Kind]int {
	n := map[load.Kind]int{}
	for _, a := range r.Acts {
		for kind, k := range a.Kinds {
			n[kind] += k.Requests
		}
	}
	return n
}

// finish ends the load and fails the test if any operation has failed.
func (c *client) finish() load.Report {
	c.w.Helper()
	c.tell(load.Command{Stop: true})
	if code := c.wait(); code != 0 {
		c.w.Errorf("client: exit code %d\n%s", code, c.out)
	}
	if err := c.commands.Close(); err != nil {
		c.w.Error(err)
	}
	var r load.Report
	c.w.poll("the final report", func() bool { r = c.last(); return r.Final })
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
