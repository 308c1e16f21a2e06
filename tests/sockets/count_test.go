package sockets

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

// Services beside web: nobody listens at the endpoint of deaf, the one of mute does
// not answer, and to that of lost there is no route.
const (
	webN, deafN, muteN, lostN = 80, 91, 92, 93
	lost4                     = "10.77.7.7"
)

// tally is what the maps know of connected sockets.
type tally struct {
	opened, closed uint64
	entries        int
}

func (w *world) tally() (t tally) {
	w.Helper()
	err := w.maps(func(s *maps.Set) error {
		backends, err := s.Backends().All()
		if err != nil {
			return err
		}
		for id := range backends {
			n, err := s.Stats().Get(id)
			if err != nil {
				return err
			}
			t.opened, t.closed = t.opened+n.SocketOpened, t.closed+n.SocketClosed
		}
		return s.Sockets().Each(func(maps.SocketKey, maps.SocketPeer) bool { t.entries++; return true })
	})
	if err != nil {
		w.Fatal(err)
	}
	return t
}

// since fails the test unless that many sockets were given a backend since before,
// and that many have one, with as many entries.
func (w *world) since(before tally, opened, live int) {
	w.Helper()
	after := w.tally()
	if got := int(after.opened - before.opened); got != opened {
		w.Errorf("%d opened, want %d", got, opened)
	}
	if got := int(after.opened-before.opened) - int(after.closed-before.closed); got != live {
		w.Errorf("%d opened and not closed, want %d", got, live)
	}
	if got := after.entries - before.entries; got != live {
		w.Errorf("%d entries, want %d", got, live)
	}
}

// newCountingWorld has the services of the constants above.
func newCountingWorld(t *testing.T) *world {
	w := newWorld(t)
	w.publish("web", "web-1")
	w.addApp(w.node, "mute")
	w.silence(w.pods["mute"])
	for name, n := range map[string]int{"deaf": deafN, "mute": muteN, "lost": lostN} {
		w.write(name+".yaml", service(name, n, "", ""))
	}
	w.publish("mute", "mute")
	deaf := w.slice("deaf", "IPv4", []string{"web-1"}) + "---\n" + w.slice("deaf", "IPv6", []string{"web-1"})
	deaf = strings.ReplaceAll(deaf, fmt.Sprint("port: ", pod.HTTPPort), "port: 9")
	w.write("deaf-endpoints.yaml", strings.ReplaceAll(deaf, fmt.Sprint("port: ", pod.UDPPort), "port: 9"))
	w.write("lost-endpoints.yaml", strings.ReplaceAll(w.slice("lost", "IPv4", []string{"web-1"}), w.pods["web-1"].Addr4.String(), lost4))
	for _, ns := range w.origins() {
		w.blackhole(ns, netip.MustParseAddr(lost4))
	}
	w.await("the services", func() error {
		return w.maps(func(s *maps.Set) error {
			c, err := s.Contents()
			if err != nil {
				return err
			}
			for _, n := range []int{webN, deafN, muteN, lostN} {
				f := maps.Frontend{Addr: at(n, httpPort).Addr(), Port: httpPort, Proto: maps.TCP}
				if c.Frontends[f].Cluster.Length == 0 {
					return fmt.Errorf("no endpoints of %s", f)
				}
			}
			return nil
		})
	})
	return w
}

// silence takes the way back to the clients from p.
func (w *world) silence(p *lab.Pod) {
	for _, a := range []netip.Addr{w.client.Addr4, w.client.Addr6, w.node.Addr4, w.node.Addr6} {
		w.blackhole(p.NS, a)
	}
}

func (w *world) blackhole(ns *lab.NS, a netip.Addr) {
	w.Helper()
	dst := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
	err := ns.Do(func() error { return netlink.RouteReplace(&netlink.Route{Dst: dst, Type: unix.RTN_BLACKHOLE}) })
	if err != nil {
		w.Fatal(err)
	}
}

func at(n int, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, 0, byte(n)}), port)
}

func at6(n int, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("fd00:10:96::%d", n)), port)
}

// rawSocket is a socket that a test does everything with by itself.
func (w *world) rawSocket(ns *lab.NS, family, kind int) (fd int) {
	w.Helper()
	err := ns.Do(func() (err error) {
		fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return fd
}

func (w *world) shut(fd int) {
	w.Helper()
	if err := unix.Close(fd); err != nil {
		w.Fatal(err)
	}
}

// dialBy connects fd; the error must be want.
func (w *world) dialBy(fd int, to netip.AddrPort, want error) {
	w.Helper()
	addr, _ := sockaddr(to)
	if err := unix.Connect(fd, addr); !errors.Is(err, want) {
		w.Fatalf("connect to %s: %v, want %v", to, err, want)
	}
}

// undial is connect(AF_UNSPEC).
func (w *world) undial(fd int) {
	w.Helper()
	var none unix.RawSockaddrAny
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&none)), unix.SizeofSockaddrInet6)
	if errno != 0 {
		w.Fatal(errno)
	}
}

// ended waits for the end of a connect that did not wait, which must be want.
func (w *world) ended(fd int, want error) {
	w.Helper()
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		n, err := unix.Poll(ready, int(quick.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 || err != nil {
			w.Fatalf("poll: %d, %v", n, err)
		}
		break
	}
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil || unix.Errno(got) != want {
		w.Fatalf("connect ended with %v, %v, want %v", unix.Errno(got), err, want)
	}
}

func TestConnectsThatFailLeaveNothing(t *testing.T) {
	w := newCountingWorld(t)
	tests := []struct {
		name string
		call func(w *world, ns *lab.NS)
	}{
		{"refused", func(w *world, ns *lab.NS) {
			fd := w.rawSocket(ns, unix.AF_INET, unix.SOCK_STREAM)
			w.dialBy(fd, at(deafN, httpPort), unix.ECONNREFUSED)
			w.shut(fd)
		}},
		{"refused, IPv6", func(w *world, ns *lab.NS) {
			fd := w.rawSocket(ns, unix.AF_INET6, unix.SOCK_STREAM)
			w.dialBy(fd, at6(deafN, httpPort), unix.ECONNREFUSED)
			w.shut(fd)
		}},
		{"no route", func(w *world, ns *lab.NS) {
			fd := w.rawSocket(ns, unix.AF_INET, unix.SOCK_STREAM)
			w.dialBy(fd, at(lostN, httpPort), unix.EINVAL)
			w.shut(fd)
		}},
		{"UDP, no route", func(w *world, ns *lab.NS) {
			fd := w.rawSocket(ns, unix.AF_INET, unix.SOCK_DGRAM)
			w.dialBy(fd, at(lostN, echoPort), unix.EINVAL)
			w.shut(fd)
		}},
		{"under way, then refused", func(w *world, ns *lab.NS) {
			fd := w.rawSocket(ns, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
			w.dialBy(fd, at(deafN, httpPort), unix.EINPROGRESS)
			w.ended(fd, unix.ECONNREFUSED)
			w.shut(fd)
		}},
		{"closed before it is connected", func(w *world, ns *lab.NS) {
			fd := w.rawSocket(ns, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
			w.dialBy(fd, at(muteN, httpPort), unix.EINPROGRESS)
			w.shut(fd)
		}},
		{"waited for in vain", func(w *world, ns *lab.NS) {
			fd := w.rawSocket(ns, unix.AF_INET, unix.SOCK_STREAM)
			bound := unix.NsecToTimeval((20 * time.Millisecond).Nanoseconds())
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &bound); err != nil {
				w.Fatal(err)
			}
			w.dialBy(fd, at(muteN, httpPort), unix.EINPROGRESS)
			w.shut(fd)
		}},
		{"undone while it is under way", func(w *world, ns *lab.NS) {
			fd := w.rawSocket(ns, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
			w.dialBy(fd, at(muteN, httpPort), unix.EINPROGRESS)
			w.undial(fd)
			w.shut(fd)
		}},
		{"undone", func(w *world, ns *lab.NS) {
			fd := w.rawSocket(ns, unix.AF_INET, unix.SOCK_STREAM)
			w.dialBy(fd, at(webN, httpPort), nil)
			w.undial(fd)
			w.shut(fd)
		}},
		{"UDP, undone", func(w *world, ns *lab.NS) {
			fd := w.rawSocket(ns, unix.AF_INET, unix.SOCK_DGRAM)
			w.dialBy(fd, at(webN, echoPort), nil)
			w.undial(fd)
			w.shut(fd)
		}},
	}
	for _, tc := range tests {
		for origin, ns := range w.origins() {
			t.Run(tc.name+" from "+origin, func(t *testing.T) {
				w := w.in(t)
				before := w.tally()
				const times = 20
				for range times {
					tc.call(w, ns)
				}
				w.since(before, times, 0)
			})
		}
	}
	t.Run("timed out", func(t *testing.T) {
		w := w.in(t)
		before := w.tally()
		fd := w.rawSocket(w.client.NS, unix.AF_INET, unix.SOCK_STREAM)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT, 1); err != nil {
			t.Fatal(err)
		}
		w.dialBy(fd, at(muteN, httpPort), unix.ETIMEDOUT)
		w.shut(fd)
		w.since(before, 1, 0)
	})
}

func TestASocketThatConnectsAgainHasItsLastBackendOnly(t *testing.T) {
	w := newCountingWorld(t)
	peerIs := func(w *world, fd int, want netip.AddrPort) {
		w.Helper()
		peer, err := unix.Getpeername(fd)
		if err != nil {
			w.Fatal(err)
		}
		p := peer.(*unix.SockaddrInet4)
		if got := netip.AddrPortFrom(netip.AddrFrom4(p.Addr), uint16(p.Port)); got != want {
			w.Errorf("the peer is %s, want %s", got, want)
		}
	}
	tests := []struct {
		name   string
		kind   int
		call   func(w *world, fd int)
		opened int
		live   int // before it is closed
	}{
		{"refused, then connected", unix.SOCK_STREAM, func(w *world, fd int) {
			w.dialBy(fd, at(deafN, httpPort), unix.ECONNREFUSED)
			w.dialBy(fd, at(webN, httpPort), nil)
			peerIs(w, fd, at(webN, httpPort))
		}, 2, 1},
		{"refused 20 times", unix.SOCK_STREAM, func(w *world, fd int) {
			for range 20 {
				w.dialBy(fd, at(deafN, httpPort), unix.ECONNREFUSED)
			}
		}, 20, 1},
		{"undone, then connected", unix.SOCK_STREAM, func(w *world, fd int) {
			w.dialBy(fd, at(webN, httpPort), nil)
			w.undial(fd)
			w.dialBy(fd, at(webN, httpPort), nil)
			peerIs(w, fd, at(webN, httpPort))
		}, 2, 1},
		{"undone, then connected to the pod", unix.SOCK_STREAM, func(w *world, fd int) {
			w.dialBy(fd, at(webN, httpPort), nil)
			w.undial(fd)
			pod := netip.AddrPortFrom(w.pods["web-1"].Addr4, pod.HTTPPort)
			w.dialBy(fd, pod, nil)
			peerIs(w, fd, pod)
		}, 1, 0},
		{"connected twice", unix.SOCK_STREAM, func(w *world, fd int) {
			w.dialBy(fd, at(webN, httpPort), nil)
			w.dialBy(fd, at(deafN, httpPort), unix.EISCONN)
			peerIs(w, fd, at(webN, httpPort))
		}, 1, 1},
		{"UDP, to services in turn", unix.SOCK_DGRAM, func(w *world, fd int) {
			for range 10 {
				for _, n := range []int{muteN, deafN, webN} {
					w.dialBy(fd, at(n, echoPort), nil)
					peerIs(w, fd, at(n, echoPort))
				}
			}
		}, 30, 1},
		{"UDP, to the pod", unix.SOCK_DGRAM, func(w *world, fd int) {
			w.dialBy(fd, at(webN, echoPort), nil)
			pod := netip.AddrPortFrom(w.pods["web-1"].Addr4, pod.UDPPort)
			w.dialBy(fd, pod, nil)
			peerIs(w, fd, pod)
		}, 1, 0},
		{"UDP, to where there is no route", unix.SOCK_DGRAM, func(w *world, fd int) {
			w.dialBy(fd, at(webN, echoPort), nil)
			w.dialBy(fd, at(lostN, echoPort), unix.EINVAL)
			peerIs(w, fd, at(webN, echoPort)) // it is still there
		}, 2, 1},
		{"UDP, refused at once", unix.SOCK_DGRAM, func(w *world, fd int) {
			w.dialBy(fd, at(webN, echoPort), nil)
			w.dialBy(fd, at(94, echoPort), unix.ECONNREFUSED)
			peerIs(w, fd, at(webN, echoPort))
		}, 1, 1},
	}
	w.write("empty.yaml", service("empty", 94, "", ""))
	w.publish("empty")
	w.sync("empty", at(94, echoPort).String()+"/UDP")
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			w := w.in(t)
			before := w.tally()
			fd := w.rawSocket(w.client.NS, unix.AF_INET, tc.kind)
			tc.call(w, fd)
			after := w.tally()
			if opened, live := int(after.opened-before.opened), int(after.opened-before.opened-after.closed+before.closed); opened != tc.opened || live != tc.live {
				t.Errorf("%d opened, %d live, want %d and %d", opened, live, tc.opened, tc.live)
			}
			if n := after.entries - before.entries; n > 2 {
				t.Errorf("%d entries of one socket", n)
			}
			w.shut(fd)
			w.since(before, tc.opened, 0)
		})
	}
}

func TestASocketIsCountedAsClosedWithItsLastDescriptor(t *testing.T) {
	w := newCountingWorld(t)
	for name, kind := range map[string]int{"TCP": unix.SOCK_STREAM, "UDP": unix.SOCK_DGRAM} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			before := w.tally()
			fd := w.rawSocket(w.client.NS, unix.AF_INET, kind)
			to := at(webN, httpPort)
			if kind == unix.SOCK_DGRAM {
				to = at(webN, echoPort)
			}
			w.dialBy(fd, to, nil)
			other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			// A child that has it, of another namespace.
			f := os.NewFile(uintptr(other), "socket")
			sleep := exec.Command("sleep", "infinity")
			sleep.ExtraFiles = []*os.File{f}
			child, err := w.lab.Client.Start(sleep)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			w.shut(fd)
			w.since(before, 1, 1)
			w.killAgent()
			if err := child.Kill(); err != nil {
				t.Fatal(err)
			}
			w.await("the socket to be closed", func() error {
				if after := w.tally(); after.opened-before.opened != after.closed-before.closed {
					return errors.New("it is not")
				}
				return nil
			})
			w.startAgent()
			w.since(before, 1, 0)
		})
	}
}

// Unconnected sockets have no end that programs see.
func TestUnconnectedSocketsAreNotCounted(t *testing.T) {
	w := newCountingWorld(t)
	before := w.tally()
	c, err := w.client.ListenPacket(t.Context(), "udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := answeringTo(c, at(webN, echoPort)); err != nil {
		t.Fatal(err)
	}
	if after := w.tally(); after.opened != before.opened || after.closed != before.closed {
		t.Errorf("%+v, was %+v", after, before)
	}
}

func TestThreadsThatShareASocketLeaveNothing(t *testing.T) {
	w := newCountingWorld(t)
	for name, kind := range map[string]int{"TCP": unix.SOCK_STREAM, "UDP": unix.SOCK_DGRAM} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			before := w.tally()
			for range 50 {
				fd := w.rawSocket(w.client.NS, unix.AF_INET, kind|unix.SOCK_NONBLOCK)
				var threads sync.WaitGroup
				for i := range 4 {
					addr, _ := sockaddr(at([]int{webN, deafN, muteN, lostN}[i], []uint16{httpPort, echoPort}[kind-1]))
					threads.Go(func() {
						for range 20 {
							_ = unix.Connect(fd, addr) // one is first
						}
					})
				}
				threads.Wait()
				w.shut(fd)
			}
			after := w.tally()
			if opened, closed := after.opened-before.opened, after.closed-before.closed; opened < 50 || opened != closed {
				t.Errorf("%d opened, %d closed", opened, closed)
			}
			if after.entries != before.entries {
				t.Errorf("%d entries are left", after.entries-before.entries)
			}
		})
	}
}
