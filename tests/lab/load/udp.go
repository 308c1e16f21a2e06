package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"
)

// flow sends the datagrams of one UDP flow, each as a request of its own.
func (r *Runner) flow(ctx context.Context, target string) {
	conn, err := r.ports.dial(ctx, target)
	if err != nil {
		r.book.add(r.act.Load().tally, outcome{kind: UDP, target: target, err: err})
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	id := r.id()
	gap := time.NewTicker(max(r.cfg.Gap, time.Millisecond))
	defer gap.Stop()
	for i := range r.cfg.Datagrams {
		if i > 0 {
			<-gap.C
		}
		a := r.act.Load()
		began := time.Now()
		name, err := exchange(conn, fmt.Sprintf("flow %d: ", id), i, r.cfg.DatagramTimeout)
		if ctx.Err() != nil {
			return
		}
		r.book.add(a.tally, outcome{kind: UDP, target: target, pod: name, took: time.Since(began), err: err})
	}
}

// exchange sends datagram number i of a flow and waits for its answer. Late
// answers to earlier datagrams, which have failed already, are skipped.
func exchange(conn net.Conn, flow string, i int, timeout time.Duration) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	question := fmt.Sprintf("%s%d", flow, i)
	if _, err := conn.Write([]byte(question)); err != nil {
		return "", err
	}
	buf := make([]byte, 512)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return "", err
		}
		answer := string(buf[:n])
		if name, ok := strings.CutPrefix(answer, question+" "); ok {
			return name, nil
		}
		if !strings.HasPrefix(answer, flow) {
			return "", fmt.Errorf("wrong answer %.40q to %q", answer, question)
		}
	}
}

// The source ports of UDP flows, outside the kernel's ephemeral range as far
// as possible. Taking them in order, no port comes back while anything on the
// way may still remember its last flow.
const (
	firstPort = 10000
	lastPort  = 60000
)

// ports hands out source ports. Safe for concurrent use.
type ports struct {
	mu   sync.Mutex
	next int
}

func newPorts() *ports { return &ports{next: firstPort} }

func (p *ports) take() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	port := p.next
	if p.next++; p.next > lastPort {
		p.next = firstPort
	}
	return port
}

// dial connects a UDP socket from the next source port that is free.
func (p *ports) dial(ctx context.Context, target string) (net.Conn, error) {
	const attempts = 100
	var err error
	for range attempts {
		d := net.Dialer{LocalAddr: &net.UDPAddr{Port: p.take()}}
		var conn net.Conn
		conn, err = d.DialContext(ctx, "udp", target)
		if !errors.Is(err, syscall.EADDRINUSE) {
			return conn, err
		}
	}
	return nil, err
}
