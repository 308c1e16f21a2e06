package rig

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/lab"
)

// A test run always gives a program an Ethernet header. What a device without one
// does, the kernel has to show with real packets on a real device.

// wireWait bounds the wait for a packet.
const wireWait = 3 * time.Second

// Wire is where a test sends packets to a device, and gets what leaves by it.
type Wire struct {
	Ifindex uint32
	file    *os.File
	// ethernet: packets have an Ethernet header here.
	ethernet bool
}

// Tunnels are a World whose clients are behind a tun device, as are the backends
// 10.244.10.0/24 and fd00:244:10::/64. The uplink has the TC programs too.
type Tunnels struct {
	Tun, Uplink, Pods *Wire
}

// AddTunnel adds the device with its routes, attaches the programs to both devices,
// and opens both wires. clients are the networks behind it.
func (r *Rig) AddTunnel(tb testing.TB, clients ...string) Tunnels {
	tb.Helper()
	var t Tunnels
	err := r.World.Do(func() (err error) {
		if t.Tun, err = openTun("tun0"); err != nil {
			return err
		}
		if err := routeInto("tun0", append(clients, "10.244.10.0/24", "fd00:244:10::/64")); err != nil {
			return err
		}
		if t.Uplink, err = openPeer("peer0", r.World.Uplink); err != nil {
			return err
		}
		if t.Pods, err = openPeer("peer2", r.World.Pods); err != nil {
			return err
		}
		r.tunnel = t.Tun.Ifindex
		for ifindex, ethernet := range map[uint32]bool{t.Tun.Ifindex: false, r.World.Uplink: true} {
			for _, hook := range []maps.Hook{maps.HookTCEgress, maps.HookTCIngress} {
				if err := r.attach(hook, int(ifindex), ethernet); err != nil {
					return err
				}
			}
		}
		return nil
	})
	tb.Cleanup(func() {
		for _, w := range []*Wire{t.Tun, t.Uplink, t.Pods} {
			if w != nil {
				_ = w.file.Close()
			}
		}
	})
	if errors.Is(err, lab.ErrNoTun) {
		tb.Skipf("missing feature: %v", err)
	}
	r.must(tb, errors.Join(err, r.putDevices()))
	return t
}

// attach puts the program of hook on a device, by a filter that goes with it.
func (r *Rig) attach(hook maps.Hook, ifindex int, ethernet bool) error {
	p, err := r.Programs.For(hook, ethernet)
	if err != nil {
		return err
	}
	if hook == maps.HookTCIngress && !ethernet {
		caches, err := routeCaches(p)
		if err != nil {
			return err
		}
		r.routes = append(r.routes, caches...)
	}
	clsact := netlink.QdiscAttrs{LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
	if err := netlink.QdiscReplace(&netlink.Clsact{QdiscAttrs: clsact}); err != nil {
		return fmt.Errorf("add clsact: %w", err)
	}
	parent := uint32(netlink.HANDLE_MIN_INGRESS)
	if hook == maps.HookTCEgress {
		parent = netlink.HANDLE_MIN_EGRESS
	}
	err = netlink.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: ifindex, Parent: parent, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL},
		Fd:          p.FD(), Name: hook.String(), DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("add filter: %w", err)
	}
	return nil
}

// openTun adds a tun device and keeps it until its file is closed.
func openTun(name string) (*Wire, error) {
	file, err := lab.OpenTun(name, nil)
	if err != nil {
		return nil, err
	}
	dev, err := netlink.LinkByName(name)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("find %s: %w", name, err), file.Close())
	}
	return &Wire{Ifindex: uint32(dev.Attrs().Index), file: file}, addAddresses(dev, "10.77.0.1/24", "fd00:77::1/64")
}

// openPeer opens a packet socket on the other end of the uplink.
func openPeer(name string, uplink uint32) (*Wire, error) {
	peer, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: peer.Index}),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("packet socket on %s: %w", name, err), unix.Close(fd))
	}
	return &Wire{Ifindex: uplink, file: os.NewFile(uintptr(fd), name), ethernet: true}, nil
}

func routeInto(device string, networks []string) error {
	dev, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	for _, text := range networks {
		_, dst, err := net.ParseCIDR(text)
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: dev.Attrs().Index, Dst: dst}); err != nil {
			return fmt.Errorf("add route %s: %w", text, err)
		}
	}
	return nil
}

// ether is the length of an Ethernet header.
const ether = 14

// Put sends frame, which has an Ethernet header wherever it goes.
func (w *Wire) Put(tb testing.TB, frame []byte) {
	tb.Helper()
	if !w.ethernet {
		frame = Unpadded(frame)[ether:]
	}
	if _, err := w.file.Write(frame); err != nil {
		tb.Fatal(err)
	}
}

// Unpadded returns frame, which has no tags, without what is behind its IP packet:
// short frames have been padded for Ethernet.
func Unpadded(frame []byte) []byte {
	end := ether + 40 + int(binary.BigEndian.Uint16(frame[ether+4:]))
	if frame[ether]>>4 == 4 {
		end = ether + int(binary.BigEndian.Uint16(frame[ether+2:]))
	}
	return frame[:min(end, len(frame))]
}

// Take returns the IP packet to dst, of a protocol, that leaves by the device next;
// nil if none does.
func (w *Wire) Take(tb testing.TB, dst netip.Addr, proto uint8) []byte {
	tb.Helper()
	buf := make([]byte, 4096)
	if err := w.file.SetReadDeadline(time.Now().Add(wireWait)); err != nil {
		tb.Fatal(err)
	}
	for {
		n, err := w.file.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			tb.Fatal(err)
		}
		packet := buf[:n]
		if w.ethernet {
			packet = packet[ether:]
		}
		if isFor(packet, dst, proto) {
			return packet
		}
	}
}

// isFor reports whether a packet is to dst. Nodes say a lot of other things.
func isFor(packet []byte, dst netip.Addr, proto uint8) bool {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(packet[16:20])) == dst && packet[9] == proto
	case len(packet) >= 40 && packet[0]>>4 == 6:
		next := packet[6]
		if next == 44 && len(packet) >= 48 { // a fragment
			next = packet[40]
		}
		return netip.AddrFrom16([16]byte(packet[24:40])) == dst && next == proto
	}
	return false
}
