package topology

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
)

// Source ports towards one backend of another node, with fewer of them than there
// are connections while an agent is away, or questions in what netfilter remembers
// of them: each port has to be used again and again.

// fewPorts are 3977.
const fewPorts = "1024-5000"

// A closed connection gives its port up after three seconds, whoever is there to
// collect it.
func TestConnectionsGoOnFindingSourcePortsWithoutAnAgent(t *testing.T) {
	const rate, howLong = 500, 40 * time.Second
	w, vip := scarceWorld(t)
	w.scarceAgent().kill()
	w.wantAll(rate, howLong, func(ctx context.Context, d *net.Dialer) error {
		conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(vip, httpPort).String())
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// A question and its answer are worth a port for as long.
func TestQuestionsGoOnFindingSourcePorts(t *testing.T) {
	const rate, howLong = 500, 20 * time.Second
	w, vip := scarceWorld(t)
	w.scarceAgent()
	defer w.logVerdicts()
	w.wantAll(rate, howLong, func(ctx context.Context, d *net.Dialer) error {
		conn, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(vip, echoPort).String())
		if err != nil {
			return err
		}
		defer conn.Close()
		deadline, _ := ctx.Deadline()
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
		if _, err := conn.Write([]byte("question")); err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 2048))
		return err
	})
}

// scarceWorld has one endpoint, on another node, and an address that no other test
// has: the kernel's client is to be translated by nobody else.
func scarceWorld(t *testing.T) (*world, netip.Addr) {
	t.Helper()
	vip := netip.MustParseAddr("203.0.113.188")
	w := newWorldIn(t, lab.Config{UplinkPeer: lab.NativeXDPPeer(), VIPs: []netip.Addr{vip}})
	vip4, _ := lab.DefaultVIPs()
	w.write("cluster.yaml", strings.ReplaceAll(clusterManifest(w.entry), vip4.String(), vip.String()))
	w.publish(w.pods[2])
	return w, vip
}

// scarceAgent is ready when it returns.
func (w *world) scarceAgent() *process {
	w.Helper()
	p := w.startAgentWith("--health-responder", "off", "--east-west", "off", "--snat-ports", fewPorts)
	w.await("the agent to be ready", p, w.healthy)
	return p
}

// wantAll does something from the client so many times a second, each within a few
// seconds, and wants no error.
func (w *world) wantAll(rate int, howLong time.Duration, do func(context.Context, *net.Dialer) error) {
	w.Helper()
	const workers, each = 64, 5 * time.Second
	work := make(chan struct{}, rate) // a second's worth may wait
	var done, failed atomic.Int64
	var first sync.Once
	var why error
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			err := w.client().Do(func() error {
				for range work {
					ctx, cancel := context.WithTimeout(context.Background(), each)
					err := do(ctx, new(net.Dialer))
					cancel()
					done.Add(1)
					if err != nil {
						failed.Add(1)
						first.Do(func() { why = fmt.Errorf("number %d: %w", done.Load(), err) })
					}
				}
				return nil
			})
			if err != nil {
				w.Error(err)
			}
		})
	}
	w.pace(rate, howLong, work)
	all.Wait()
	if n := failed.Load(); n > 0 {
		w.Errorf("%d of %d failed, the first: %v", n, done.Load(), why)
	}
	w.Logf("%d done in %s", done.Load(), howLong)
}

// logVerdicts says what the datapath counted, if the test has failed.
func (w *world) logVerdicts() {
	if !w.Failed() {
		return
	}
	body, err := get(w.Context(), w.entry.NS, "http://"+metricsAddr+"/metrics")
	if err != nil {
		w.Error(err)
	}
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "ebb_packets_total{") && !strings.HasSuffix(line, " 0\n") {
			w.Log(strings.TrimSpace(line))
		}
	}
}

// pace asks for work, and closes the channel in the end.
func (w *world) pace(rate int, howLong time.Duration, work chan<- struct{}) {
	defer close(work)
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	end := time.After(howLong)
	for {
		select {
		case <-tick.C:
		case <-end:
			return
		case <-w.Context().Done():
			return
		}
		select {
		case work <- struct{}{}:
		default: // the machine is too slow for that many
		}
	}
}
