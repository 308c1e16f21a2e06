package pathmtu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/ebb-lb/ebb/tests/lab/content"
)

// What pods serve: source sends a transfer to whoever connects, sink takes one
// and answers how much of it was right, echo returns datagrams.

const (
	// transfer is in bytes: many windows, none of which may be lost for good.
	transfer = 4 << 20
	seed     = 7
)

// port is one of the service and the one of the pod behind it.
type port struct {
	proto        string
	service, pod uint16
}

func ports() map[string]port {
	return map[string]port{
		"source": {"TCP", 81, 9081},
		"sink":   {"TCP", 82, 9082},
		"echo":   {"UDP", 83, 9083},
	}
}

// serve runs serveConn for every connection to l, until l is closed.
func serve(l net.Listener, serveConn func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			serveConn(conn)
		}()
	}
}

func serveSource(conn net.Conn) { _ = sendTransfer(conn) }

func serveSink(conn net.Conn) {
	v := content.NewVerifier(seed)
	_, err := io.Copy(v, conn)
	fmt.Fprintf(conn, "%d right, %v", v.Offset(), err)
}

// echo returns every datagram, until c is closed.
func echo(c net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(buf[:n], from)
	}
}

func sendTransfer(conn io.Writer) error {
	data := make([]byte, transfer)
	content.Fill(data, seed, 0)
	_, err := conn.Write(data)
	return err
}

// download takes a transfer from the source at addr.
func (w *world) download(addr netip.Addr) error {
	conn, err := w.dial("tcp", addr, ports()["source"])
	if err != nil {
		return err
	}
	defer conn.Close()
	v := content.NewVerifier(seed)
	if _, err := io.Copy(v, conn); err != nil {
		return fmt.Errorf("after %d bytes: %w", v.Offset(), err)
	}
	if v.Offset() != transfer {
		return fmt.Errorf("%d bytes came, want %d", v.Offset(), transfer)
	}
	return nil
}

// upload gives one to the sink at addr.
func (w *world) upload(addr netip.Addr) error {
	conn, err := w.dial("tcp", addr, ports()["sink"])
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := sendTransfer(conn); err != nil {
		return err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("%d right, <nil>", transfer); string(answer) != want {
		return fmt.Errorf("the sink says %q, want %q", answer, want)
	}
	return nil
}

// datagrams are in bytes: several fragments each, and the most UDP takes over IPv4.
func datagrams() []int { return []int{8000, 65507} }

// exchange sends a datagram to the echo at addr and wants it back in time.
func (w *world) exchange(addr netip.Addr, size int, within time.Duration) error {
	conn, err := w.dial("udp", addr, ports()["echo"])
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	sent, got := make([]byte, size), make([]byte, 1<<16)
	content.Fill(sent, seed, 0)
	if _, err := conn.Write(sent); err != nil {
		return err
	}
	n, err := conn.Read(got)
	if err != nil {
		return err
	}
	if !bytes.Equal(got[:n], sent) {
		return fmt.Errorf("%d bytes came back of %d, and other ones", n, size)
	}
	return nil
}

// dial connects to a port of the service at addr, with a deadline for all that follows.
func (w *world) dial(network string, addr netip.Addr, p port) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	conn, err := w.lab.Client.Dial(ctx, network, netip.AddrPortFrom(addr, p.service).String())
	if err != nil {
		return nil, err
	}
	if w.control != nil {
		if err := w.control(conn.(syscall.Conn)); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return conn, conn.SetDeadline(time.Now().Add(patience))
}
