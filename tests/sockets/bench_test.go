package sockets

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

const (
	benchRounds = 1501
	benchSlice  = 2 * time.Millisecond
	benchPort   = 7
)

// work does one thing over and over against an address until the deadline, and
// returns how often.
type work func(to netip.AddrPort, deadline time.Time) (int, error)

// What a client pays for its Service, beside the same by the pod's address. Both
// take turns, so that whatever else the machine does meets them alike.
func BenchmarkServiceAgainstPodAddress(b *testing.B) {
	w := newWorld(b)
	p := w.pods["web-1"]
	w.serveBytes(p.NS)
	w.write("bench.yaml", strings.NewReplacer(fmt.Sprint("port: ", httpPort), fmt.Sprint("port: ", benchPort),
		fmt.Sprint("port: ", echoPort), fmt.Sprint("port: ", benchPort)).Replace(service("bench", 90, "", "")))
	w.write("bench-endpoints.yaml", strings.NewReplacer(fmt.Sprint("port: ", pod.HTTPPort), fmt.Sprint("port: ", benchPort),
		fmt.Sprint("port: ", pod.UDPPort), fmt.Sprint("port: ", benchPort)).Replace(
		w.slice("bench", "IPv4", []string{"web-1"})+"---\n"+w.slice("bench", "IPv6", []string{"web-1"})))
	w.sync("bench", fmt.Sprintf("10.96.0.90:%d/UDP", benchPort))
	for _, c := range []struct {
		name string
		do   work
	}{
		{"connections-TCP", connections}, {"requests-TCP", requests(unix.SOCK_STREAM)},
		{"requests-UDP", requests(unix.SOCK_DGRAM)}, {"requests-UDP-unconnected", unconnected},
	} {
		b.Run(c.name+"/v4", func(b *testing.B) {
			w.compare(b, c.do, netip.MustParseAddr("10.96.0.90"), p.Addr4)
		})
		b.Run(c.name+"/v6", func(b *testing.B) {
			w.compare(b, c.do, netip.MustParseAddr("fd00:10:96::90"), p.Addr6)
		})
	}
}

// compare reports the median rates of both, and their ratio. Turns are so short
// that most of them are not disturbed by other programs.
func (w *world) compare(b *testing.B, do work, service, direct netip.Addr) {
	var rates [2][]float64
	err := w.client.Do(func() error {
		for round := range benchRounds {
			for turn := range 2 {
				which := (turn + round) % 2 // each begins as often as the other
				n, err := rate(do, []netip.Addr{service, direct}[which])
				if err != nil {
					return err
				}
				rates[which] = append(rates[which], n)
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(0, "ns/op") // means nothing here
	b.ReportMetric(median(rates[0]), "service/s")
	b.ReportMetric(median(rates[1]), "pod/s")
	b.ReportMetric(median(rates[0])/median(rates[1]), "ratio")
}

// rate works for a moment and returns how often a second.
func rate(do work, addr netip.Addr) (float64, error) {
	begin := time.Now()
	n, err := do(netip.AddrPortFrom(addr, benchPort), begin.Add(benchSlice))
	return float64(n) / time.Since(begin).Seconds(), err
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// connections opens and resets connections: a port is free again at once.
func connections(to netip.AddrPort, deadline time.Time) (n int, err error) {
	for ; time.Now().Before(deadline); n++ {
		fd, err := connected(unix.SOCK_STREAM, to)
		if err != nil {
			return n, err
		}
		if err := unix.Close(fd); err != nil {
			return n, err
		}
	}
	return n, nil
}

// requests asks and waits for the answer, by one connected socket.
func requests(kind int) work {
	return func(to netip.AddrPort, deadline time.Time) (n int, err error) {
		fd, err := connected(kind, to)
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		return repeat(fd, deadline, func(b []byte) error {
			_, err := unix.Write(fd, b)
			return err
		})
	}
}

// unconnected is requests by a socket that says with each datagram where it goes.
func unconnected(to netip.AddrPort, deadline time.Time) (n int, err error) {
	addr, family := sockaddr(to)
	fd, err := open(family, unix.SOCK_DGRAM)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return repeat(fd, deadline, func(b []byte) error { return unix.Sendto(fd, b, 0, addr) })
}

func repeat(fd int, deadline time.Time, send func([]byte) error) (n int, err error) {
	b := []byte{1}
	for ; time.Now().Before(deadline); n++ {
		if err := send(b); err != nil {
			return n, err
		}
		if err := receive(fd, b); err != nil {
			return n, err
		}
	}
	return n, nil
}

// receive begins anew after a signal: with SO_RCVTIMEO the kernel does not, see
// signal(7), and the Go runtime interrupts threads whenever it likes.
func receive(fd int, b []byte) error {
	for {
		if _, _, err := unix.Recvfrom(fd, b, 0); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func connected(kind int, to netip.AddrPort) (int, error) {
	addr, family := sockaddr(to)
	fd, err := open(family, kind)
	if err != nil {
		return 0, err
	}
	if err := unix.Connect(fd, addr); err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// open returns a socket that waits for nothing long.
func open(family, kind int) (int, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	bound := unix.NsecToTimeval(quick.Nanoseconds())
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &bound)
	if err == nil && kind == unix.SOCK_STREAM {
		err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	if err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func sockaddr(to netip.AddrPort) (unix.Sockaddr, int) {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}, unix.AF_INET
	}
	return &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}, unix.AF_INET6
}

// serveBytes sends back what it is sent until the benchmark ends.
func (w *world) serveBytes(ns *lab.NS) {
	w.Helper()
	l, err := ns.Listen(w.Context(), "tcp", fmt.Sprint(":", benchPort))
	if err != nil {
		w.Fatal(err)
	}
	c, err := ns.ListenPacket(w.Context(), "udp", fmt.Sprint(":", benchPort))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { l.Close(); c.Close() })
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn) // until the client resets it
			}()
		}
	}()
	go func() {
		b := make([]byte, 100)
		for n, from, err := c.ReadFrom(b); err == nil; n, from, err = c.ReadFrom(b) {
			if _, err := c.WriteTo(b[:n], from); err != nil {
				return
			}
		}
	}()
}
