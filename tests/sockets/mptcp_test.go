package sockets

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
)

// needMPTCP skips the test where the kernel has no MPTCP.
func needMPTCP(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ENOPROTOOPT) {
		t.Skip("the kernel has no MPTCP (CONFIG_MPTCP, net.mptcp.enabled)")
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
}

// multipath is an MPTCP socket of ns that gives up after a while.
func (w *world) multipath(ns *lab.NS, family int) (fd int) {
	w.Helper()
	err := ns.Do(func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
		if err != nil {
			return err
		}
		bound := unix.NsecToTimeval(quick.Nanoseconds())
		return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &bound),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &bound))
	})
	if err != nil {
		w.Fatal(err)
	}
	return fd
}

// fallenBack tells whether fd is plain TCP: the other end has no MPTCP.
func (w *world) fallenBack(fd int) bool {
	w.Helper()
	// The size is that of the first kernel's struct mptcp_info.
	_, err := unix.GetsockoptString(fd, solMPTCP, mptcpInfo)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOPROTOOPT) {
		w.Fatal(err)
	}
	return err != nil
}

const (
	solMPTCP  = 284
	mptcpInfo = 1
)

// peerOf is the peer that the program of fd sees.
func (w *world) peerOf(fd int) netip.AddrPort {
	w.Helper()
	peer, err := unix.Getpeername(fd)
	if err != nil {
		w.Fatal(err)
	}
	switch p := peer.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(p.Addr), uint16(p.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(p.Addr), uint16(p.Port))
	}
	w.Fatalf("peer %v", peer)
	return netip.AddrPort{}
}

func (w *world) asksByHTTP(fd int) {
	w.Helper()
	other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		w.Fatal(err)
	}
	f := os.NewFile(uintptr(other), "socket")
	defer f.Close()
	if answer, err := exchangeRaw(f); err != nil || !strings.Contains(answer, "web-") {
		w.Errorf("%q, %v", answer, err)
	}
}

func TestMPTCPSocketsAreBalancedShownAndCounted(t *testing.T) {
	needMPTCP(t)
	w := newCountingWorld(t)
	w.plain()
	for origin, ns := range w.origins() {
		for _, to := range []netip.AddrPort{at(webN, httpPort), at6(webN, httpPort), at(plainN, httpPort), at6(plainN, httpPort)} {
			t.Run(fmt.Sprint(origin, " to ", to), func(t *testing.T) {
				w := w.in(t)
				before := w.tally()
				_, family := sockaddr(to)
				fd := w.multipath(ns, family)
				w.dialBy(fd, to, nil)
				if got := w.peerOf(fd); got != to {
					t.Errorf("the peer is %s", got)
				}
				if plain := to == at(plainN, httpPort) || to == at6(plainN, httpPort); w.fallenBack(fd) != plain {
					t.Errorf("fallen back to TCP: %v", !plain)
				}
				w.since(before, 1, 1)
				w.asksByHTTP(fd)
				if got := w.peerOf(fd); got != to {
					t.Errorf("after an answer the peer is %s", got)
				}
				w.shut(fd)
				w.since(before, 1, 0)
			})
		}
		t.Run(origin+" refused", func(t *testing.T) {
			w := w.in(t)
			before := w.tally()
			for range 20 {
				fd := w.multipath(ns, unix.AF_INET)
				w.dialBy(fd, at(deafN, httpPort), unix.ECONNREFUSED)
				w.shut(fd)
			}
			w.since(before, 20, 0)
		})
		t.Run(origin+" again", func(t *testing.T) {
			w := w.in(t)
			before := w.tally()
			fd := w.multipath(ns, unix.AF_INET)
			w.dialBy(fd, at(deafN, httpPort), unix.ECONNREFUSED)
			w.dialBy(fd, at(webN, httpPort), nil)
			if got := w.peerOf(fd); got != at(webN, httpPort) {
				t.Errorf("the peer is %s", got)
			}
			w.undial(fd)
			w.dialBy(fd, at(webN, httpPort), nil)
			if got := w.peerOf(fd); got != at(webN, httpPort) {
				t.Errorf("the peer is %s", got)
			}
			w.shut(fd)
			w.since(before, 3, 0)
		})
		t.Run(origin+" by address", func(t *testing.T) {
			w := w.in(t)
			before := w.tally()
			fd := w.multipath(ns, unix.AF_INET)
			to := netip.AddrPortFrom(w.pods["web-1"].Addr4, 8080)
			w.dialBy(fd, to, nil)
			if got := w.peerOf(fd); got != to {
				t.Errorf("the peer is %s", got)
			}
			w.shut(fd)
			w.since(before, 0, 0)
		})
	}
}

// A subflow more is not a connection more: it goes to the backend by its address.
func TestASubflowMoreTakesNothingAway(t *testing.T) {
	needMPTCP(t)
	w := newCountingWorld(t)
	second := netip.MustParseAddr("192.0.2.77")
	w.addAddress(w.node.NS, second)
	if err := w.node.Do(func() error { return addSubflowsFrom(second) }); err != nil {
		t.Fatal(err)
	}
	before := w.tally()
	fd := w.multipath(w.node.NS, unix.AF_INET)
	to := at(webN, httpPort)
	w.dialBy(fd, to, nil)
	// What is acknowledged establishes it; the answer would end it.
	if _, err := unix.Write(fd, []byte("GET ")); err != nil {
		t.Fatal(err)
	}
	w.await("a second subflow", func() error {
		info, err := unix.GetsockoptString(fd, solMPTCP, mptcpInfo)
		if err == nil && (info == "" || info[0] == 0) {
			err = errors.New("there is one only")
		}
		return err
	})
	if got := w.peerOf(fd); got != to {
		t.Errorf("the peer is %s", got)
	}
	w.since(before, 1, 1)
	w.shut(fd)
	w.since(before, 1, 0)
}

// addSubflowsFrom makes MPTCP sockets of this namespace add a subflow from addr: see
// linux/mptcp_pm.h.
func addSubflowsFrom(addr netip.Addr) error {
	const (
		addAddr, version, attrAddr                   = 1, 1, 1
		attrFamily, attrAddr4, attrFlags, asksForOne = 1, 3, 6, 1 << 1
	)
	family, err := netlink.GenlFamilyGet("mptcp_pm")
	if err != nil {
		return err
	}
	req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_ACK)
	req.AddData(&nl.Genlmsg{Command: addAddr, Version: version})
	endpoint := nl.NewRtAttr(unix.NLA_F_NESTED|attrAddr, nil)
	endpoint.AddRtAttr(attrFamily, nl.Uint16Attr(unix.AF_INET))
	endpoint.AddRtAttr(attrAddr4, addr.AsSlice())
	endpoint.AddRtAttr(attrFlags, nl.Uint32Attr(asksForOne))
	req.AddData(endpoint)
	_, err = req.Execute(unix.NETLINK_GENERIC, 0)
	return err
}

const plainN = 98

// plain makes a service whose pod has no MPTCP.
func (w *world) plain() {
	w.Helper()
	p, err := w.node.AddPod("plain")
	if err != nil {
		w.Fatal(err)
	}
	w.pods["plain"] = p
	var l net.Listener
	err = p.Do(func() error {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		l, err = lc.Listen(w.Context(), "tcp", ":8080")
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = c.Read(make([]byte, 1000))
				fmt.Fprint(c, "web-plain")
			}()
		}
	}()
	w.write("plain.yaml", service("plain", plainN, "", ""))
	w.publish("plain", "plain")
	w.reaches(w.node.NS, "udp", at(webN, echoPort).String(), "web-1")
	w.await("plain", func() error {
		c, err := w.node.Dial(w.Context(), "tcp", at(plainN, httpPort).String())
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// What is closed is the subflow. The kernel waits whether another one comes, before it
// tells the program of a connection without any.
func TestMPTCPSocketsOfABackendThatIsGoneAreReset(t *testing.T) {
	needMPTCP(t)
	w := newWorld(t, "--on-backend-gone", "reset")
	w.publish("web", "web-1")
	w.await("web-1 to be the only one", w.only("web-1"))
	err := w.node.Do(func() error { return os.WriteFile("/proc/sys/net/mptcp/close_timeout", []byte("1"), 0) })
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the kernel waits a minute (net.mptcp.close_timeout)")
	}
	if err != nil {
		t.Fatal(err)
	}
	fd := w.multipath(w.node.NS, unix.AF_INET)
	defer unix.Close(fd)
	w.dialBy(fd, at(webN, httpPort), nil)
	// So that it is known at both ends that it is MPTCP.
	if _, err := unix.Write(fd, []byte("GET ")); err != nil {
		t.Fatal(err)
	}
	w.publish("web", "web-2")
	w.await("the connection to end", func() error {
		n, err := unix.Read(fd, make([]byte, 1))
		if n == 0 && err == nil || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.ENOTCONN) {
			t.Logf("read: %d, %v", n, err)
			return nil
		}
		return fmt.Errorf("read: %d, %w", n, err)
	})
}
