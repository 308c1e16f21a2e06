package sockets

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
)

// An IPv6 socket reaches IPv4 Services by v4-mapped addresses, and is shown these.
func TestSocketsOfBothFamiliesDialMappedAddresses(t *testing.T) {
	w := newWorld(t)
	for origin, ns := range w.origins() {
		for name, kind := range map[string]int{"tcp": unix.SOCK_STREAM, "udp": unix.SOCK_DGRAM} {
			t.Run(origin+" "+name, func(t *testing.T) {
				port := map[int]int{unix.SOCK_STREAM: httpPort, unix.SOCK_DGRAM: echoPort}[kind]
				to := &unix.SockaddrInet6{Addr: netip.MustParseAddr("10.96.0.80").As16(), Port: port}
				f, err := dialRaw(ns, kind, to)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				peer, err := unix.Getpeername(int(f.Fd()))
				if got, ok := peer.(*unix.SockaddrInet6); err != nil || !ok || got.Addr != to.Addr || got.Port != port {
					t.Errorf("the peer is %+v, %v", peer, err)
				}
				if answer, err := exchangeRaw(f); err != nil || !strings.Contains(answer, "web-") {
					t.Errorf("%q, %v", answer, err)
				}
			})
		}
	}
}

// dialRaw connects an IPv6 socket, which gives up after a while.
func dialRaw(ns *lab.NS, kind int, to unix.Sockaddr) (*os.File, error) {
	var fd int
	err := ns.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET6, kind|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		bound := unix.NsecToTimeval(quick.Nanoseconds())
		for _, opt := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, opt, &bound); err != nil {
				return err
			}
		}
		return unix.Connect(fd, to)
	})
	return os.NewFile(uintptr(fd), "socket"), err
}

// exchangeRaw says something any pod answers, whatever the protocol.
func exchangeRaw(f *os.File) (string, error) {
	if _, err := fmt.Fprint(f, "GET /echo/hello HTTP/1.1\r\nHost: lab\r\n\r\n"); err != nil {
		return "", err
	}
	buf := make([]byte, 1000)
	n, err := f.Read(buf)
	return string(buf[:n]), err
}
