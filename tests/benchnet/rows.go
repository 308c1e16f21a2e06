package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// row is a kind of traffic.
type row struct {
	name, title string
	format      string // of a rate
	measure     func(w *world, lasting time.Duration) (float64, error)
}

func rows() []row {
	return []row{
		{"connections", "TCP connections/s", "%.0f", connectionRate},
		{"requests", "requests/s, keep-alive", "%.0f", requestRate},
		{"bulk", "TCP Gbit/s", "%.2f", bulkRate},
		{"udp-one-flow", "UDP packets/s, one flow", "%.0f", oneFlowRate},
		{"udp-new-flows", "UDP packets/s, each a new flow", "%.0f", newFlowRate},
	}
}

// prepareClient works in the namespace of the client.
func prepareClient() error {
	for name, value := range map[string]string{
		"net/ipv4/ip_local_port_range": "1024 65535",
		"net/ipv4/tcp_syn_retries":     "2", // a connection that fails does so within patience
	} {
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// connectionRate is how often a second clients connect, ask, get a reply, and see
// the server close.
func connectionRate(w *world, lasting time.Duration) (float64, error) {
	return w.rate(lasting, func(i int, begin func() time.Time) (n int, err error) {
		request, reply := newRequest(wantOne), make([]byte, requestSize)
		for until := begin(); err == nil && time.Now().Before(until); n++ {
			err = oneRequest(w.target(i+n), request, reply)
		}
		return n, err
	})
}

func oneRequest(to netip.AddrPort, request, reply []byte) error {
	fd, err := connect(unix.SOCK_STREAM, to)
	if err != nil {
		return err
	}
	if err = send(fd, request); err == nil {
		_, err = receive(fd, reply)
	}
	if err == nil {
		_, err = receive(fd, reply)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, unix.Close(fd))
}

// requestRate is how often a second clients get a reply by connections they keep.
func requestRate(w *world, lasting time.Duration) (float64, error) {
	return w.rate(lasting, func(i int, begin func() time.Time) (n int, err error) {
		fd, err := connect(unix.SOCK_STREAM, w.target(i))
		if err != nil {
			return 0, err
		}
		request, reply := newRequest(wantMany), make([]byte, requestSize)
		for until := begin(); err == nil && time.Now().Before(until); n++ {
			if err = send(fd, request); err == nil {
				_, err = receive(fd, reply)
			}
		}
		return n, errors.Join(err, unix.Close(fd))
	})
}

// rate adds up what all clients have done, by second. A client calls begin when it is
// ready, which returns when all are, and says how long to go on.
func (w *world) rate(lasting time.Duration, client func(i int, begin func() time.Time) (int, error)) (float64, error) {
	var (
		done    atomic.Int64
		until   time.Time
		open    = make(chan struct{})
		ready   = make([]chan struct{}, connections)
		threads = make([]*thread, connections)
	)
	for i := range connections {
		ready[i] = make(chan struct{})
		threads[i] = start(w.client, w.nice, func() error {
			n, err := client(i, func() time.Time {
				close(ready[i])
				<-open
				return until
			})
			done.Add(int64(n))
			return err
		})
	}
	for i, t := range threads {
		select {
		case <-ready[i]:
		case <-t.done: // with an error
		}
	}
	began := time.Now()
	until = began.Add(lasting)
	close(open)
	err := wait(threads...)
	return float64(done.Load()) / time.Since(began).Seconds(), err
}

// bulkRate is what one connection carries from the client to a pod.
func bulkRate(w *world, lasting time.Duration) (gbits float64, err error) {
	before := w.received()
	var elapsed time.Duration
	err = wait(start(w.client, w.nice, func() error {
		fd, err := connect(unix.SOCK_STREAM, w.target(0))
		if err != nil {
			return err
		}
		began := time.Now()
		err = sendBulk(fd, began.Add(lasting))
		elapsed = time.Since(began)
		return errors.Join(err, unix.Close(fd))
	}))
	return float64(w.received()-before) * 8 / float64(elapsed.Nanoseconds()), err
}

// sendBulk returns when the server has got everything.
func sendBulk(fd int, until time.Time) error {
	bound := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &bound); err != nil {
		return fmt.Errorf("bound sending: %w", err)
	}
	data := make([]byte, bulkSize)
	data[0] = wantSink
	for time.Now().Before(until) {
		if err := send(fd, data); err != nil {
			return err
		}
	}
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return fmt.Errorf("end sending: %w", err)
	}
	if _, err := receive(fd, data); !errors.Is(err, io.EOF) {
		return fmt.Errorf("wait for the server to close: %w", err)
	}
	return nil
}

// oneFlowRate is how many datagrams of one socket reach a pod's.
func oneFlowRate(w *world, lasting time.Duration) (float64, error) {
	return w.datagramRate(lasting, func() (*datagrams, error) {
		fd, err := connect(unix.SOCK_DGRAM, w.target(0))
		return &datagrams{fd: fd, batch: newBatch(batchSize, requestSize), renew: func() {}}, err
	})
}

// newFlowRate is how many datagrams reach a pod's socket if no two of them have the
// same source. They are written to the client's device as frames: a socket for each
// would cost more than the way through the node.
func newFlowRate(w *world, lasting time.Duration) (float64, error) {
	return w.datagramRate(lasting, w.openFrames)
}

// datagrams are sent over and over.
type datagrams struct {
	fd    int
	batch *batch
	renew func() // called before each time
}

func (d *datagrams) send(until time.Time) error {
	for time.Now().Before(until) {
		d.renew()
		_, err := d.batch.send(d.fd)
		if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("send datagrams: %w", err)
		}
	}
	return nil
}

// datagramRate is how many datagrams arrive per second of sending.
func (w *world) datagramRate(lasting time.Duration, open func() (*datagrams, error)) (float64, error) {
	sending, sent := context.WithCancel(context.Background())
	defer sent()
	var arrived atomic.Int64
	var servers []*thread
	for i, p := range w.pods {
		servers = append(servers, start(p.NS, w.nice, func() error {
			n, err := w.servers[i].countUDP(sending)
			arrived.Add(int64(n))
			return err
		}))
	}
	var elapsed time.Duration
	err := wait(start(w.client, w.nice, func() error {
		d, err := open()
		if err != nil {
			return err
		}
		began := time.Now()
		err = d.send(began.Add(lasting))
		elapsed = time.Since(began)
		return errors.Join(err, unix.Close(d.fd))
	}))
	sent()
	err = errors.Join(err, wait(servers...))
	return float64(arrived.Load()) / elapsed.Seconds(), err
}

// received returns how many bytes all servers have got.
func (w *world) received() (n uint64) {
	for _, s := range w.servers {
		n += s.bytes.Load()
	}
	return n
}

func newRequest(want byte) []byte {
	b := make([]byte, requestSize)
	b[0] = want
	return b
}

// connect works in the namespace of the client.
func connect(kind int, to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if err == nil {
		err = boundReceive(fd)
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("connect to %s: %w", to, err), unix.Close(fd))
	}
	return fd, nil
}
