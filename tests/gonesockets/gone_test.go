package gonesockets

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/loader/sockdiag"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/lab"
)

// The backends of the server, each in another state.
const (
	active maps.BackendID = iota + 1
	gone
	replaced
	unserving
	forgotten
)

// putBackends writes all of them; each is the server.
func (w *world) putBackends(addr netip.Addr) {
	w.Helper()
	at := netip.AddrPortFrom(addr, port)
	for id, b := range map[maps.BackendID]maps.Backend{
		active:    {Addr: at, State: maps.Active, Generation: 1},
		gone:      {Addr: at, State: maps.Gone, Generation: 1},
		replaced:  {Addr: at, State: maps.Active, Generation: 2},
		unserving: {Addr: at, State: maps.Draining, Unserving: true, Generation: 1},
	} {
		if err := w.set.Backends().Put(id, b); err != nil {
			w.Fatal(err)
		}
	}
}

func TestSocketsOfBackendsThatAreGoneAreClosed(t *testing.T) {
	w := newWorld(t)
	families := []struct {
		name   string
		addr   netip.Addr
		mapped bool
	}{
		{"v4", w.server.Addr4, false},
		{"v6", w.server.Addr6, false},
		{"v4-mapped", w.server.Addr4, true},
	}
	tests := []struct {
		name    string
		proto   maps.Proto
		backend maps.BackendID
		reset   bool
		closed  bool
	}{
		{"UDP of a backend that is there", maps.UDP, active, true, false},
		{"UDP of one that is gone", maps.UDP, gone, false, true},
		{"UDP of one whose index another has", maps.UDP, replaced, false, true},
		{"UDP of one that does not serve", maps.UDP, unserving, false, true},
		{"UDP of one nobody remembers", maps.UDP, forgotten, false, true},
		{"TCP of a backend that is there", maps.TCP, active, true, false},
		{"TCP of one that is gone, to be kept", maps.TCP, gone, false, false},
		{"TCP of one that is gone, to be reset", maps.TCP, gone, true, true},
		{"TCP of one whose index another has, to be reset", maps.TCP, replaced, true, true},
		{"TCP of one that does not serve", maps.TCP, unserving, true, false},
	}
	for _, tc := range tests {
		for _, f := range families {
			for origin, ns := range map[string]*lab.NS{"pod": w.client.NS, "host": w.node.NS} {
				t.Run(tc.name+"/"+f.name+" from "+origin, func(t *testing.T) {
					w := &world{T: t, node: w.node, client: w.client, server: w.server, set: w.set}
					w.putBackends(f.addr)
					kind := unix.SOCK_DGRAM
					if tc.proto == maps.TCP {
						kind = unix.SOCK_STREAM
					}
					s, bystander := w.dial(ns, kind, f.addr, f.mapped), w.dial(ns, kind, f.addr, f.mapped)
					k := w.put(s, tc.proto, netip.AddrPortFrom(f.addr, port), tc.backend)
					w.expect(k, s, tc.reset, tc.closed)
					if err := bystander.answers(); err != nil {
						t.Errorf("a socket of the same program that dialled no Service: %v", err)
					}
					if err := w.set.Sockets().Delete(k); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

// expect looks through the sockets once.
func (w *world) expect(k maps.SocketKey, s socket, reset, closed bool) {
	w.Helper()
	n, err := w.closer(reset).Close()
	if err != nil || closed != (n == 1) {
		w.Errorf("%d sockets closed, error %v", n, err)
	}
	if has := w.has(k); has == closed {
		w.Errorf("the entry is there: %v", has)
	}
	if !closed {
		if err := s.answers(); err != nil {
			w.Errorf("a socket that is to stay: %v", err)
		}
		return
	}
	if err := s.read(); !errors.Is(err, aborted) {
		w.Errorf("read: %v, want %v", err, aborted)
	}
}

func TestAReaderThatWaitsIsWoken(t *testing.T) {
	w := newWorld(t)
	w.putBackends(w.server.Addr4)
	s := w.dial(w.client.NS, unix.SOCK_DGRAM, w.server.Addr4, false)
	read := make(chan error, 1)
	go func() { read <- s.read() }()
	w.put(s, maps.UDP, netip.AddrPortFrom(w.server.Addr4, port), active)
	ctx, cancel := context.WithCancel(t.Context())
	c, done := w.closer(false), make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	w.put(s, maps.UDP, netip.AddrPortFrom(w.server.Addr4, port), gone)
	c.Wake()
	if err := <-read; !errors.Is(err, aborted) {
		t.Errorf("read: %v, want %v", err, aborted)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSocketsThatLeftTheBackendStay(t *testing.T) {
	w := newWorld(t)
	w.putBackends(w.server.Addr4)
	backend := netip.AddrPortFrom(w.server.Addr4, port)
	elsewhere := w.dial(w.client.NS, unix.SOCK_DGRAM, w.server.Addr6, false)
	unconnected, conn := w.unconnected()
	keys := []maps.SocketKey{
		w.put(elsewhere, maps.UDP, backend, gone),
		w.put(unconnected, maps.UDP, backend, gone),
	}
	if n, err := w.closer(true).Close(); n != 0 || err != nil {
		t.Errorf("%d sockets closed, error %v", n, err)
	}
	for _, k := range keys {
		if !w.has(k) {
			t.Errorf("the entry %s is gone: answers on their way have the wrong address", k)
		}
	}
	if err := elsewhere.answers(); err != nil {
		t.Errorf("a socket connected elsewhere: %v", err)
	}
	if _, err := conn.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(backend)); err != nil {
		t.Errorf("an unconnected socket: %v", err)
	}
}

func TestASocketThatWasAboutToConnectIsClosedALittleLater(t *testing.T) {
	w := newWorld(t)
	w.putBackends(w.server.Addr4)
	backend := netip.AddrPortFrom(w.server.Addr4, port)
	s, conn := w.unconnected()
	w.put(s, maps.UDP, backend, gone)
	first := w.put(socket{cookie: 1 << 50, netns: s.netns}, maps.UDP, backend, gone)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.closer(false).Run(ctx) }()
	w.await("the first look", func() bool { return !w.has(first) })
	w.connect(conn, backend)
	s.conn = conn
	if err := s.read(); !errors.Is(err, aborted) {
		t.Errorf("read: %v, want %v", err, aborted)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// connect connects a socket that is there already.
func (w *world) connect(c *net.UDPConn, to netip.AddrPort) {
	w.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		w.Fatal(err)
	}
	var inner error
	peer := &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	if err := raw.Control(func(fd uintptr) { inner = unix.Connect(int(fd), peer) }); err != nil || inner != nil {
		w.Fatal(err, inner)
	}
}

// unconnected opens a socket of the client that is not connected.
func (w *world) unconnected() (s socket, c *net.UDPConn) {
	w.Helper()
	pc, err := w.client.ListenPacket(w.Context(), "udp4", "0.0.0.0:0")
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { pc.Close() })
	c = pc.(*net.UDPConn)
	raw, err := c.SyscallConn()
	if err != nil {
		w.Fatal(err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { s, inner = named(int(fd)) }); err != nil || inner != nil {
		w.Fatal(err, inner)
	}
	return s, c
}

func TestEntriesOfSocketsThatAreNotThereAreForgotten(t *testing.T) {
	w := newWorld(t)
	w.putBackends(w.server.Addr4)
	backend := netip.AddrPortFrom(w.server.Addr4, port)
	s := w.dial(w.client.NS, unix.SOCK_DGRAM, w.server.Addr4, false)
	k, live := w.put(s, maps.UDP, backend, gone), w.put(socket{cookie: 1 << 50, netns: s.netns}, maps.UDP, backend, active)
	if err := s.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := w.closer(false).Close(); n != 0 || err != nil {
		t.Errorf("%d sockets closed, error %v", n, err)
	}
	if w.has(k) {
		t.Error("the entry of a closed socket is still there")
	}
	if !w.has(live) {
		t.Error("an entry of a backend that is there was looked at")
	}
}

func TestTheKernelTellsWhetherItClosesSockets(t *testing.T) {
	w := newWorld(t)
	if err := w.client.Do(sockdiag.Probe); err != nil {
		t.Error(err)
	}
}
