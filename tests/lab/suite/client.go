package suite

import (
	"bytes"
	"encoding/json"
	"os"
	"sync"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/load"
)

// Output is what a process has said. It is safe for concurrent use.
type Output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

// String returns all that was said so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Client is a process that produces load. It ends when it is told to, or with
// the lab. It is safe for concurrent use.
type Client struct {
	*lab.Process
	Said *Output

	commands *os.File
	told     chan struct{}

	mu     sync.Mutex
	report load.Report
}

// StartClient starts a Client in ns. It does nothing before it is told of an act.
func StartClient(ns *lab.NS, cfg load.Config) (*Client, error) {
	cmd, err := LoadCommand(cfg)
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
		commands.Close()
		return nil, err
	}
	defer out.Close()
	c := &Client{Said: &Output{}, commands: commands, told: make(chan struct{})}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, c.Said
	if c.Process, err = ns.Start(cmd); err != nil {
		commands.Close()
		reports.Close()
		return nil, err
	}
	go c.read(reports)
	return c, nil
}

// read keeps the last report, until the process ends.
func (c *Client) read(reports *os.File) {
	defer close(c.told)
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

// Last returns the last report.
func (c *Client) Last() load.Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.report
}

// Told is closed when there are no more reports.
func (c *Client) Told() <-chan struct{} { return c.told }

// Tell sends a command.
func (c *Client) Tell(cmd load.Command) error { return load.WriteLine(c.commands, cmd) }

// CloseCommands ends the commands of a Client that was told to stop.
func (c *Client) CloseCommands() error { return c.commands.Close() }

// Requests adds up the operations of a report, by kind.
func Requests(r load.Report) map[load.Kind]int {
	n := map[load.Kind]int{}
	for _, a := range r.Acts {
		for kind, k := range a.Kinds {
			n[kind] += k.Requests
		}
	}
	return n
}
