// Package gonesockets tests the closing of sockets whose backend is gone, with real
// sockets in namespaces of a lab and maps filled by hand. No program runs.
package gonesockets

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/agent/sockets"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/lab"
)

const (
	// idleVar makes the test binary a process that does nothing.
	idleVar = "LAB_IDLE"
	port    = 5353
	quick   = 10 * time.Second
)

func TestMain(m *testing.M) {
	if os.Getenv(idleVar) != "" {
		select {}
	}
	os.Exit(m.Run())
}

// world is a node with a pod that echoes and a pod of clients.
type world struct {
	*testing.T
	node   *lab.Node
	client *lab.Pod
	server *lab.Pod
	set    *maps.Set
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: creates network namespaces and maps")
	}
	l, err := lab.New(t.Context(), lab.Config{Nodes: []string{"node-a"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{T: t, node: l.Nodes[0]}
	if w.set, err = maps.Create(maps.DefaultSizes()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.set.Close(); err != nil {
			t.Error(err)
		}
	})
	w.client, w.server = w.addPod("client"), w.addPod("server")
	w.inhabit(w.client.NS)
	w.inhabit(w.node.NS)
	w.serve()
	return w
}

func (w *world) addPod(name string) *lab.Pod {
	w.Helper()
	p, err := w.node.AddPod(name)
	if err != nil {
		w.Fatal(err)
	}
	return p
}

// inhabit puts a process into ns, as every pod has one.
func (w *world) inhabit(ns *lab.NS) {
	w.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), idleVar+"=1")
	if _, err := ns.Start(cmd); err != nil {
		w.Fatal(err)
	}
}

// serve makes the server echo TCP and UDP of both families.
func (w *world) serve() {
	w.Helper()
	l, err := w.server.Listen(w.Context(), "tcp", fmt.Sprint(":", port))
	if err != nil {
		w.Fatal(err)
	}
	c, err := w.server.ListenPacket(w.Context(), "udp", fmt.Sprint(":", port))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { l.Close(); c.Close() })
	go echoStreams(l)
	go echoDatagrams(c)
}

func echoStreams(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn) // until the client is gone
		}()
	}
}

func echoDatagrams(c net.PacketConn) {
	buf := make([]byte, 100)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(buf[:n], from) // whoever asked may be gone
	}
}

// socket is one of a client, as the map knows it.
type socket struct {
	conn   net.Conn
	cookie uint64
	netns  uint64
}

// dial connects to the server from inside ns. The socket is of family AF_INET6 if it
// is to be mapped.
func (w *world) dial(ns *lab.NS, kind int, addr netip.Addr, mapped bool) socket {
	w.Helper()
	s, err := open(ns, kind, netip.AddrPortFrom(addr, port), mapped)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { s.conn.Close() })
	return s
}

func open(ns *lab.NS, kind int, to netip.AddrPort, mapped bool) (s socket, err error) {
	family := unix.AF_INET6
	var peer unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if to.Addr().Is4() && !mapped {
		family, peer = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	err = ns.Do(func() error {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "socket")
		defer f.Close()
		if err := unix.Connect(fd, peer); err != nil {
			return err
		}
		s, err = named(fd)
		if err != nil {
			return err
		}
		s.conn, err = net.FileConn(f)
		return err
	})
	return s, err
}

// named asks the kernel how fd is known to programs.
func named(fd int) (s socket, err error) {
	if s.cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
		return s, err
	}
	s.netns, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return s, err
}

// put writes what a program on sockets would for the backend at addr.
func (w *world) put(s socket, proto maps.Proto, addr netip.AddrPort, id maps.BackendID) maps.SocketKey {
	w.Helper()
	k := maps.SocketKey{Cookie: s.cookie, Addr: addr, Proto: proto, Way: maps.SocketBackend}
	v := maps.SocketPeer{
		Addr: netip.MustParseAddrPort("10.96.0.10:53"), Backend: id, Generation: 1, Netns: s.netns,
	}
	if err := w.set.Sockets().Put(k, v); err != nil {
		w.Fatal(err)
	}
	return k
}

func (w *world) closer(resetTCP bool) *sockets.Closer {
	return sockets.New(w.set, resetTCP, nil, slog.New(slog.DiscardHandler))
}

// has reports whether the map has an entry of k.
func (w *world) has(k maps.SocketKey) (found bool) {
	w.Helper()
	err := w.set.Sockets().Each(func(got maps.SocketKey, _ maps.SocketPeer) bool {
		found = got == k
		return !found
	})
	if err != nil {
		w.Fatal(err)
	}
	return found
}

// await looks until done.
func (w *world) await(what string, done func() bool) {
	w.Helper()
	deadline := time.After(quick)
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for !done() {
		select {
		case <-deadline:
			w.Fatalf("waited for %s", what)
		case <-again.C:
		}
	}
}

// read is what a program sees that waits for an answer: an error, or nil.
func (s socket) read() error {
	if err := s.conn.SetDeadline(time.Now().Add(quick)); err != nil {
		return err
	}
	_, err := s.conn.Read(make([]byte, 100))
	return err
}

// answers is nil if the socket still works.
func (s socket) answers() error {
	if _, err := s.conn.Write([]byte("hello")); err != nil {
		return err
	}
	return s.read()
}

const aborted = syscall.ECONNABORTED
