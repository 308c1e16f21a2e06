package topology

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
)

// What is short-lived, at the rates of busy nodes and at the sizes users have, to one
// backend on another node: all of it shares the node's source ports. "make soak" lets it
// run long enough for every timeout to pass.

var ratesFor = flag.Duration("rates.for", time.Second, "how long each rate is kept up")

// besides lets others run at the same time, unless the rates are what it is about.
func besides(t *testing.T) {
	if *ratesFor <= time.Second {
		t.Parallel()
	}
}

// pace is what a crowd of clients does.
type pace struct {
	perSecond, clients int
	op                 func(to netip.AddrPort) error
}

// result counts what became of it.
type result struct {
	done, failed int64
	first        error
	took         time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("%d, %.0f a second, %d failed", r.done, float64(r.done)/r.took.Seconds(), r.failed)
}

// keepUp has clients do it for as long as the flag says, one after the other at its turn. Who is
// late goes on at once.
func (w *world) keepUp(p pace, to netip.AddrPort) result {
	w.Helper()
	var turn, done, failed atomic.Int64
	var once sync.Once
	var r result
	begin := time.Now()
	every := time.Second / time.Duration(p.perSecond)
	client := func() error {
		for {
			at := time.Duration(turn.Add(1)-1) * every
			if at >= *ratesFor || time.Since(begin) > *ratesFor+patience {
				return nil
			}
			time.Sleep(time.Until(begin.Add(at)))
			done.Add(1)
			if err := p.op(to); err != nil {
				failed.Add(1)
				once.Do(func() { r.first = fmt.Errorf("after %v: %w", time.Since(begin).Round(time.Millisecond), err) })
			}
		}
	}
	var all sync.WaitGroup
	for range p.clients {
		all.Go(func() {
			if err := w.lab.Client.Do(client); err != nil {
				w.Error(err)
			}
		})
	}
	all.Wait()
	r.done, r.failed, r.took = done.Load(), failed.Load(), time.Since(begin)
	return r
}

// ask makes one socket in the calling thread's namespace, has it say and hear something,
// and closes it.
func ask(kind int, to netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(int64(5 * time.Second))
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit); err != nil {
			return fmt.Errorf("timeout: %w", err)
		}
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if _, err := unix.Write(fd, []byte("who?\n")); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if n, err := unix.Read(fd, make([]byte, 64)); err != nil || n == 0 {
		return fmt.Errorf("read %d bytes: %w", n, err)
	}
	return nil
}

func askTCP(to netip.AddrPort) error { return ask(unix.SOCK_STREAM, to) }
func askUDP(to netip.AddrPort) error { return ask(unix.SOCK_DGRAM, to) }

// startDefault starts an agent with the sizes that users have.
func (w *world) startDefault(xdp string) *process {
	w.Helper()
	args := w.agentArgs()
	for i := 0; i < len(args); {
		if strings.HasPrefix(args[i], "--max-") {
			args = slices.Delete(args, i, i+2)
			continue
		}
		i++
	}
	p := w.run(append(args, "--source", "dir:"+w.manifests, "--health-responder", "off", "--xdp", xdp)...)
	w.await("the agent to be ready", p, w.healthy)
	return p
}

// manyPorts lets the client have as many connections as there are ports.
func (w *world) manyPorts() {
	w.Helper()
	err := w.lab.Client.Do(func() error {
		for name, value := range map[string]string{"ip_local_port_range": "1024 65535", "tcp_tw_reuse": "1"} {
			if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
}

func TestRatesOfShortConnectionsToAnotherNode(t *testing.T) {
	vip, _ := lab.DefaultVIPs()
	for name, tc := range map[string]struct {
		pace pace
		port uint16
		dead bool // nobody tends the agent's maps
	}{
		"2000 questions a second by UDP":                 {pace{2000, 24, askUDP}, echoPort, false},
		"2000 connections a second":                      {pace{2000, 24, askTCP}, httpPort, false},
		"500 connections a second, the agent being dead": {pace{500, 12, askTCP}, httpPort, true},
	} {
		for _, xdp := range []string{"native", "off"} {
			t.Run(name+"/xdp "+xdp, func(t *testing.T) {
				besides(t)
				w := newWorld(t)
				w.publish(w.addEcho(w.lab.Nodes[1]))
				w.manyPorts()
				agent := w.startDefault(xdp)
				if tc.dead {
					agent.kill()
				}
				r := w.keepUp(tc.pace, netip.AddrPortFrom(vip, tc.port))
				t.Log(r)
				if r.failed > 0 {
					t.Errorf("%s; the first %v", r, r.first)
				}
			})
		}
	}
}

// Closed connections take nobody's place.
func TestRatesOfClosesLeaveEstablishedConnections(t *testing.T) {
	vip, _ := lab.DefaultVIPs()
	to := netip.AddrPortFrom(vip, httpPort)
	for _, xdp := range []string{"native", "off"} {
		t.Run("xdp "+xdp, func(t *testing.T) {
			besides(t)
			w := newWorld(t)
			w.publish(w.addNamer(w.entry, "a1"), w.addNamer(w.lab.Nodes[1], "b1"))
			w.manyPorts()
			w.startDefault(xdp)
			var kept []*visit
			for range 500 {
				kept = append(kept, w.visit(to.String()))
			}
			r := w.keepUp(pace{5000, 48, askTCP}, to)
			t.Log(r)
			if r.failed > 0 {
				t.Errorf("%s; the first %v", r, r.first)
			}
			if b, _ := w.askAgain(kept); b != (became{wentOn: len(kept)}) {
				t.Errorf("of %d connections: %+v", len(kept), b)
			}
		})
	}
}
