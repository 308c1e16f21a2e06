package topology

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/suite"
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
	kind               int // of sockets
}

// result counts what became of it.
type result struct {
	done, failed int64
	reset        int64 // of the failed
	first        error
	took         time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("%d, %.0f a second, %d failed, %d of them by a RST", r.done, float64(r.done)/r.took.Seconds(), r.failed, r.reset)
}

// keepUp has clients do it for as long as the flag says, one after the other at its turn. Who is
// late goes on at once.
func (w *world) keepUp(p pace, to netip.AddrPort) result {
	w.Helper()
	var turn, done, failed, reset atomic.Int64
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
			n := done.Add(1)
			if err := ask(p.kind, clientOf(n), to); err != nil {
				failed.Add(1)
				if errors.Is(err, unix.ECONNRESET) {
					reset.Add(1)
				}
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
	r.done, r.failed, r.reset, r.took = done.Load(), failed.Load(), reset.Load(), time.Since(begin)
	return r
}

// The crowd has so many addresses, from clients4 on, and uses each port of each in turn: who
// comes back at once by one port goes on with what it had before, which is not what
// is measured here.
const (
	crowdAddrs = 8
	crowdPorts = 60_000
	firstPort  = 2000
)

var clients4 = netip.MustParseAddr("192.0.2.100")

// wantKept wants that nothing has failed, but for connections that a pod's own kernel has
// reset: it may look for a connection between its handshake and its socket, and find
// neither. (Of 150 000 connections 5 to 8 ended so without ebb, by rules of netfilter.)
func (w *world) wantKept(r result, rstsBefore int, pods ...*lab.Pod) {
	w.Helper()
	own := int64(w.rsts(pods...) - rstsBefore)
	w.Logf("%s; pods sent %d RSTs", r, own)
	if r.failed > r.reset || r.reset > own {
		w.Errorf("%s, pods sent %d RSTs; the first %v\n%s", r, own, r.first, w.verdicts())
	}
}

// rsts counts the RSTs that pods have sent.
func (w *world) rsts(pods ...*lab.Pod) (n int) {
	w.Helper()
	for _, p := range pods {
		more, err := suite.SNMP(p.NS, "Tcp", "OutRsts")
		if err != nil {
			w.Fatal(err)
		}
		n += more
	}
	return n
}

// clientOf is who is the n-th to come.
func clientOf(n int64) netip.AddrPort {
	a := clients4.As4()
	a[3] += byte(n % crowdAddrs)
	return netip.AddrPortFrom(netip.AddrFrom4(a), uint16(firstPort+n/crowdAddrs%crowdPorts))
}

// crowd gives the client the addresses.
func (w *world) crowd() {
	w.Helper()
	err := w.lab.Client.Do(func() error {
		link, err := netlink.LinkByName(lab.Uplink)
		if err != nil {
			return err
		}
		var errs []error
		for i := range int64(crowdAddrs) {
			errs = append(errs, netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: clientOf(i).Addr().AsSlice(), Mask: net.CIDRMask(32, 32)}}))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		w.Fatal(err)
	}
}

// ask makes one socket in the calling thread's namespace, has it say and hear something,
// and closes it.
func ask(kind int, from, to netip.AddrPort) error {
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
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("reuse: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(from.Port()), Addr: from.Addr().As4()}); err != nil {
		return fmt.Errorf("bind %s: %w", from, err)
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

// verdicts are the counters of packets that count something.
func (w *world) verdicts() string {
	w.Helper()
	body, err := get(w.Context(), w.entry.NS, "http://"+metricsAddr+"/metrics")
	if err != nil {
		return err.Error() // the agent may be dead
	}
	var all strings.Builder
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "ebb_packets_total") && !strings.HasSuffix(line, " 0\n") {
			all.WriteString(line)
		}
	}
	return all.String()
}

func TestRatesOfShortConnectionsToAnotherNode(t *testing.T) {
	vip, _ := lab.DefaultVIPs()
	for name, tc := range map[string]struct {
		pace pace
		port uint16
		dead bool // nobody tends the agent's maps
	}{
		"2000 questions a second by UDP":                 {pace{2000, 24, unix.SOCK_DGRAM}, echoPort, false},
		"2000 connections a second":                      {pace{2000, 24, unix.SOCK_STREAM}, httpPort, false},
		"500 connections a second, the agent being dead": {pace{500, 12, unix.SOCK_STREAM}, httpPort, true},
	} {
		for _, xdp := range []string{"native", "off"} {
			t.Run(name+"/xdp "+xdp, func(t *testing.T) {
				besides(t)
				w := newWorld(t)
				echo := w.addEcho(w.lab.Nodes[1])
				w.publish(echo)
				w.crowd()
				agent := w.startDefault(xdp)
				if tc.dead {
					agent.kill()
				}
				before := w.rsts(echo)
				w.wantKept(w.keepUp(tc.pace, netip.AddrPortFrom(vip, tc.port)), before, echo)
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
			pods := []*lab.Pod{w.addNamer(w.entry, "a1"), w.addNamer(w.lab.Nodes[1], "b1")}
			w.publish(pods...)
			w.crowd()
			w.startDefault(xdp)
			var kept []*visit
			for range 500 {
				kept = append(kept, w.visit(to.String()))
			}
			before := w.rsts(pods...)
			w.wantKept(w.keepUp(pace{5000, 48, unix.SOCK_STREAM}, to), before, pods...)
			if b, _ := w.askAgain(kept); b != (became{wentOn: len(kept)}) {
				t.Errorf("of %d connections: %+v", len(kept), b)
			}
		})
	}
}
