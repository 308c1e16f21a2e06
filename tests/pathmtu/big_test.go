package pathmtu

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
)

// BIG TCP: what the kernel puts together may be longer than the header of a packet
// can say, which is 0 then. It never is on the wire, so XDP has no part in it.
func TestPacketsMayBeLongerThanTheirHeaderCanSay(t *testing.T) {
	w := newWorld(t, "off")
	other := w.lab.Nodes[1]
	for _, ns := range []*lab.NS{w.lab.Client, w.lab.Router, w.entry.NS, other.NS, w.local.pod.NS, w.remote.pod.NS} {
		if err := ns.Do(sendBig); err != nil {
			t.Fatal(err)
		}
	}
	// IPv6 gets another header for its length, and the kernel counts it where it
	// forwards, though it is not sent: there it needs room.
	for _, ns := range []*lab.NS{w.lab.Router, other.NS} {
		if err := ns.Do(widen); err != nil {
			t.Fatal(err)
		}
	}
	w.wantBig("upload to the entry node's pod", w.upload, w.local.vip4)
	w.wantBig("download from it", w.download, w.local.vip4)
	for family, addr := range w.remote.addrs() {
		w.wantBig("upload to the other node's pod, "+family, w.upload, addr)
		w.wantBig("download from it, "+family, w.download, addr)
	}
	for _, hook := range []string{"tc-ingress", "tc-egress"} {
		for _, verdict := range []string{"malformed", "too-big"} {
			if n := w.packets(hook, verdict); n > 0 {
				t.Errorf("%d packets are %s at %s", n, verdict, hook)
			}
		}
	}
}

// wantBig wants transfers to arrive until one of them was sent in long packets.
func (w *world) wantBig(name string, transfer func(netip.Addr) error, addr netip.Addr) {
	w.Helper()
	const most = 20
	longest := 0
	for n := 0; n < most && longest <= 1<<16; n++ {
		seen, err := watchLongest(w.entry.NS, lab.Uplink)
		if err != nil {
			w.Fatal(err)
		}
		if err := transfer(addr); err != nil {
			w.Errorf("%s: %v", name, err)
		}
		longest = max(longest, seen())
	}
	if longest <= 1<<16 {
		w.Errorf("%s: no packet was longer than %d bytes: nothing was tested", name, longest)
	}
}

// sendBig lets the links of a namespace be given packets of that many bytes.
func sendBig() error {
	const most = 180_000
	return eachLink(func(dev netlink.Link) error {
		return errors.Join(netlink.LinkSetGSOMaxSize(dev, most), netlink.LinkSetGSOIPv4MaxSize(dev, most))
	})
}

func widen() error {
	const extra = 8
	return eachLink(func(dev netlink.Link) error { return netlink.LinkSetMTU(dev, dev.Attrs().MTU+extra) })
}

func eachLink(do func(netlink.Link) error) error {
	devs, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, dev := range devs {
		if dev.Attrs().Flags&net.FlagLoopback != 0 {
			continue
		}
		if err := do(dev); err != nil {
			return fmt.Errorf("%s: %w", dev.Attrs().Name, err)
		}
	}
	return nil
}

// watchLongest watches the packets on a device. What it returns ends that and says
// how long the longest was, in bytes without the Ethernet header.
func watchLongest(ns *lab.NS, device string) (func() int, error) {
	f, err := packetSocket(ns, device)
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	longest := make(chan int)
	go func() {
		most := 0
		one := func(fd uintptr) bool {
			n, _, err := unix.Recvfrom(int(fd), nil, unix.MSG_TRUNC)
			most = max(most, n)
			return err == nil
		}
		for raw.Read(one) == nil {
		}
		longest <- most
	}()
	return func() int {
		f.Close()
		return <-longest
	}, nil
}

func packetSocket(ns *lab.NS, device string) (f *os.File, err error) {
	err = ns.Do(func() error {
		dev, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "packets of "+device)
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network order
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Attrs().Index})
	})
	if err != nil && f != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, err
}
