package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
)

// The first byte of a TCP connection says what the client wants.
const (
	wantOne  = '1' // one request, then the server closes
	wantMany = 'n' // requests until the client closes
	wantSink = 's' // no reply: the server counts bytes until the client closes
)

const (
	requestSize = 64
	bulkSize    = 128 << 10
	// connections are how many clients there are at a time. A server has a thread for
	// each of them, in case they all get the same.
	connections = 4
	backlog     = 1024
	// receiveBuffer holds what arrives while the server does not get the CPU.
	receiveBuffer = 64 << 20
	lookForUDP    = time.Millisecond
	// patience bounds every wait for a packet.
	patience = 5 * time.Second
)

// server serves TCP on one port of a pod, and has a socket for datagrams there.
type server struct {
	bytes atomic.Uint64 // of clients that want a sink

	listener, socket int
	closing          atomic.Bool
	threads          []*thread
}

func newServer(ns *lab.NS, port, nice int) (*server, error) {
	s := &server{listener: -1, socket: -1}
	if err := ns.Do(func() error { return s.open(port) }); err != nil {
		return nil, errors.Join(err, s.close())
	}
	for range connections {
		s.threads = append(s.threads, start(ns, nice, s.serveTCP))
	}
	return s, nil
}

// open works in the namespace of the pod.
func (s *server) open(port int) (err error) {
	any4 := &unix.SockaddrInet4{Port: port}
	if s.listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open TCP socket: %w", err)
	}
	if err := boundReceive(s.listener); err != nil { // accepted sockets inherit it
		return err
	}
	if err := unix.Bind(s.listener, any4); err != nil {
		return fmt.Errorf("bind to TCP port %d: %w", port, err)
	}
	if err := unix.Listen(s.listener, backlog); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if s.socket, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open UDP socket: %w", err)
	}
	if err := unix.SetsockoptInt(s.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		return fmt.Errorf("set receive buffer: %w", err)
	}
	if err := unix.Bind(s.socket, any4); err != nil {
		return fmt.Errorf("bind to UDP port %d: %w", port, err)
	}
	return nil
}

// close wakes all threads and waits for them.
func (s *server) close() error {
	s.closing.Store(true)
	var errs []error
	if s.listener >= 0 {
		errs = append(errs, unix.Shutdown(s.listener, unix.SHUT_RDWR))
	}
	errs = append(errs, wait(s.threads...))
	for _, fd := range []int{s.listener, s.socket} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}

func (s *server) serveTCP() error {
	buf := make([]byte, bulkSize)
	for {
		fd, _, err := unix.Accept4(s.listener, unix.SOCK_CLOEXEC)
		switch {
		case s.closing.Load():
			if err == nil {
				return unix.Close(fd)
			}
			return nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
			continue
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		}
		s.serveConnection(fd, buf)
		if err := unix.Close(fd); err != nil {
			return fmt.Errorf("close connection: %w", err)
		}
	}
}

// serveConnection ends at the first error: what went wrong is known to the client.
func (s *server) serveConnection(fd int, buf []byte) {
	n, err := receive(fd, buf)
	if err != nil {
		return
	}
	switch buf[0] {
	case wantOne:
		_ = send(fd, buf[:n])
	case wantMany:
		for err == nil {
			if err = send(fd, buf[:n]); err == nil {
				n, err = receive(fd, buf)
			}
		}
	case wantSink:
		for ; err == nil; n, err = receive(fd, buf) {
			s.bytes.Add(uint64(n))
		}
	}
}

// countUDP receives datagrams until ctx ends and there are none left. It does not
// wait for one: to be woken for each would cost more than the way through the node.
func (s *server) countUDP(ctx context.Context) (n int, err error) {
	b := newBatch(batchSize, 2048)
	for {
		ended := ctx.Err() != nil // before the last look
		got, err := b.receive(s.socket)
		switch {
		case err == nil:
			n += got
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EAGAIN):
			return n, fmt.Errorf("receive datagrams: %w", err)
		case ended:
			return n, nil
		default:
			nap(lookForUDP)
		}
	}
}

// boundReceive makes receiving, and accepting, fail after patience.
func boundReceive(fd int) error {
	bound := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &bound); err != nil {
		return fmt.Errorf("bound receiving: %w", err)
	}
	return nil
}

// receive returns io.EOF at the end of a connection. It tries again after a signal:
// the Go runtime interrupts threads whenever it likes.
func receive(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("receive: %w", err)
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// send sends all of b.
func send(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("send: %w", err)
		}
		b = b[max(n, 0):]
	}
	return nil
}

// nap is a sleep of the thread itself: time.Sleep would hand it over to others.
func nap(d time.Duration) {
	ts := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&ts, nil) // a signal may shorten it
}
