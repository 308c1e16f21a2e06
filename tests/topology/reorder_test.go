package topology

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

const (
	// streamRate is fast enough for packets to come in bursts, which is when one that
	// takes another way is overtaken.
	streamRate = 50_000_000 // bytes per second
	// streamTicks has two multiples of 16, and the flow looks its route up again.
	streamTicks = 36
	// quiet is what must pass first: bursts of slow start overrun queues.
	quietTicks = 3
)

// TestAStreamToAnotherNodeIsNotReordered has one connection in bursts through XDP.
// Its packets take one way, also while neighbours are confirmed.
func TestAStreamToAnotherNodeIsNotReordered(t *testing.T) {
	// Devices of the lab that receive by NAPI keep the order when a busy machine moves a
	// process or a softirq to another CPU; others do not.
	napi := lab.Features{GRO: lab.On}
	w := newWorldIn(t, lab.Config{UplinkPeer: lab.NativeXDPPeer(), NodeUplink: napi, PodLink: napi})
	if err := w.lab.Router.Do(func() error { return lab.AttachPass("client") }); err != nil {
		t.Fatal(err)
	}
	sink, err := w.lab.Nodes[1].AddPod("sink")
	if err != nil {
		t.Fatal(err)
	}
	received := accept(t, sink)
	w.publish(sink)
	w.startReadyAgent()
	clock, err := loader.NewClock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = clock.Close() })

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	vip4, _ := lab.DefaultVIPs()
	out, err := w.client().Dial(ctx, "tcp4", fmt.Sprintf("%s:%d", vip4, httpPort))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	sender := out.(*net.TCPConn)
	stream(t, sender)
	in := <-received

	begin := ticks(t, clock)
	var late, lost uint32
	for now := begin; now-begin < streamTicks; now = ticks(t, clock) {
		l, r := tcpInfo(t, sender).Total_retrans, tcpInfo(t, in).Rcv_ooopack
		// A busy machine overruns queues. What is behind a lost packet is out of order too.
		if now-begin > quietTicks && r != late && l == lost {
			t.Errorf("tick %d (%d of 16): %d packets out of order", now, now%16, r-late)
		}
		late, lost = r, l
		<-time.After(clock.Tick() / 4)
	}
	if sent := w.metric(`ebb_packets_total{hook="xdp",verdict="to-remote"}`); sent < 100_000 {
		t.Errorf("XDP has sent %d packets only", sent)
	}
}

// accept hands out the first connection to p, and reads what comes by it.
func accept(t *testing.T, p *lab.Pod) <-chan *net.TCPConn {
	t.Helper()
	l, err := p.Listen(t.Context(), "tcp", fmt.Sprint(":", pod.HTTPPort))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	received := make(chan *net.TCPConn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		received <- c.(*net.TCPConn)
		_, _ = io.Copy(io.Discard, c)
	}()
	return received
}

// stream writes to c until it is closed.
func stream(t *testing.T, c *net.TCPConn) {
	t.Helper()
	control(t, c, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, streamRate)
	})
	go func() {
		buf := make([]byte, 1<<16)
		for {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	}()
}

func tcpInfo(t *testing.T, c *net.TCPConn) (info *unix.TCPInfo) {
	t.Helper()
	control(t, c, func(fd int) (err error) {
		info, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		return err
	})
	return info
}

func control(t *testing.T, c *net.TCPConn, fn func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil || inner != nil {
		t.Fatal(err, inner)
	}
}

func ticks(t *testing.T, c *loader.Clock) uint32 {
	t.Helper()
	now, err := c.Now()
	if err != nil {
		t.Fatal(err)
	}
	return now
}
