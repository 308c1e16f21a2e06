package sockets

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

// ask sends a request and returns the answer with its body read.
func ask(conn net.Conn, path string) (*http.Response, error) {
	if err := conn.SetDeadline(time.Now().Add(quick)); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: lab\r\n\r\n", path); err != nil {
		return nil, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, answer.Status)
	}
	return answer, nil
}

// answering dials from inside ns and returns the name of the pod that answers. The
// program must not see another peer than the one it dialled.
func answering(ctx context.Context, ns *lab.NS, network, addr string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, quick)
	defer cancel()
	conn, err := ns.Dial(ctx, network, addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if got := conn.RemoteAddr().String(); got != addr {
		return "", fmt.Errorf("the peer is %s, dialled was %s", got, addr)
	}
	return nameOf(conn)
}

// nameOf returns the name of the pod at the other end.
func nameOf(conn net.Conn) (string, error) {
	if _, datagrams := conn.(*net.UDPConn); datagrams {
		if _, err := conn.Write([]byte("hello")); err != nil {
			return "", err
		}
		if err := conn.SetReadDeadline(time.Now().Add(quick)); err != nil {
			return "", err
		}
		buf := make([]byte, 100)
		n, err := conn.Read(buf)
		if err != nil {
			return "", err
		}
		return echoed(buf[:n])
	}
	answer, err := ask(conn, "/echo/hello")
	if err != nil {
		return "", err
	}
	return answer.Header.Get(pod.Header), nil
}

// echoed returns the name in a pod's answer to "hello".
func echoed(answer []byte) (string, error) {
	name, ok := strings.CutPrefix(string(answer), "hello ")
	if !ok {
		return "", fmt.Errorf("answer %q", answer)
	}
	return name, nil
}

// answeringTo asks by an unconnected socket. What answers must have the address
// that was asked.
func answeringTo(c net.PacketConn, to netip.AddrPort) (string, error) {
	if _, err := c.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(to)); err != nil {
		return "", err
	}
	if err := c.SetReadDeadline(time.Now().Add(quick)); err != nil {
		return "", err
	}
	buf := make([]byte, 100)
	n, from, err := c.ReadFrom(buf)
	if err != nil {
		return "", err
	}
	got := from.(*net.UDPAddr).AddrPort()
	if got = netip.AddrPortFrom(got.Addr().Unmap(), got.Port()); got != to {
		return "", fmt.Errorf("%s answers, %s was asked", got, to)
	}
	return echoed(buf[:n])
}
