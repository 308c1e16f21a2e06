package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/load"
)

// finishBound is [client.finishBound] on an idle host.
const finishBound = 15 * time.Second

// client is the process that produces load.
type client struct {
	*child
	commands *os.File
	reports  *reportReader
	// finishBound is how long operations under way may take after the last act.
	finishBound time.Duration
}

// startClient starts a process that produces load on these addresses. It does
// nothing before its first act.
func (s *show) startClient(ns *lab.NS, name string, http, udp []string) (*client, error) {
	in, commands, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	c := &client{commands: commands, reports: &reportReader{}, finishBound: s.cfg.patience(finishBound)}
	args := []string{"demo-load", "--http", strings.Join(http, ","), "--udp", strings.Join(udp, ","),
		"--slow", strconv.Itoa(max(1, s.cfg.Slow))}
	c.child, err = s.start(ns, name, args, func(cmd *exec.Cmd) {
		cmd.Stdin, cmd.Stdout = in, c.reports
	})
	if err != nil {
		return nil, errors.Join(err, commands.Close())
	}
	return c, nil
}

// targets are the addresses the client dials: the virtual ones, and the node
// ports of the node they lead to, so that all load enters there.
func (s *show) targets() (http, udp []string) {
	vip4, vip6 := lab.DefaultVIPs()
	entry := s.network.Nodes[0]
	for _, t := range []struct {
		addr      netip.Addr
		http, udp uint16
	}{
		{vip4, httpPort, echoPort}, {vip6, httpPort, echoPort},
		{entry.Addr4, httpNodePort, echoNodePort}, {entry.Addr6, httpNodePort, echoNodePort},
	} {
		http = append(http, netip.AddrPortFrom(t.addr, t.http).String())
		udp = append(udp, netip.AddrPortFrom(t.addr, t.udp).String())
	}
	return http, udp
}

// serviceTargets are the ClusterIPs of the service.
func serviceTargets() (http, udp []string) {
	for _, ip := range clusterIPs() {
		http = append(http, netip.AddrPortFrom(ip, httpPort).String())
		udp = append(udp, netip.AddrPortFrom(ip, echoPort).String())
	}
	return http, udp
}

// startClients starts the client outside, and one in a pod that no service leads to.
func (s *show) startClients() (err error) {
	http, udp := s.targets()
	if s.client, err = s.startClient(s.network.Client, "client", http, udp); err != nil {
		return err
	}
	visitor, err := s.network.Nodes[0].AddPod("visitor")
	if err != nil {
		return err
	}
	http, udp = serviceTargets()
	s.visitor, err = s.startClient(visitor.NS, "visitor", http, udp)
	return err
}

func (c *client) tell(cmd load.Command) error {
	if err := load.WriteLine(c.commands, cmd); err != nil {
		return fmt.Errorf("command client: %w", err)
	}
	return nil
}

// finish stops the load and returns the final report.
func (c *client) finish(ctx context.Context) (load.Report, error) {
	c.expected.Store(true)
	if err := c.tell(load.Command{Stop: true}); err != nil {
		return load.Report{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.finishBound)
	defer cancel()
	select {
	case <-c.Done():
	case <-ctx.Done():
		return load.Report{}, fmt.Errorf("client does not end: %w%s", context.Cause(ctx), c.log)
	}
	report, err := c.reports.last()
	if err == nil && !report.Final {
		err = c.ended()
	}
	return report, errors.Join(err, c.commands.Close())
}

// reportReader is an io.Writer for the client's output that keeps the last
// report. Safe for concurrent use.
type reportReader struct {
	mu      sync.Mutex
	partial []byte
	report  load.Report
	err     error
}

// Write never fails, so that the client is not stopped by what it says.
func (r *reportReader) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.partial = append(r.partial, p...)
	for {
		line, rest, ok := bytes.Cut(r.partial, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		var report load.Report
		if err := json.Unmarshal(line, &report); err != nil {
			r.err = fmt.Errorf("read report of client: %w: %.100q", err, line)
		} else {
			r.report = report
		}
		r.partial = rest
	}
}

func (r *reportReader) last() (load.Report, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.report, r.err
}
