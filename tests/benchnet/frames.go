package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
)

const (
	firstPort, portCount = 1024, 65536 - 1024

	// Where headers and their fields begin in a frame.
	ipAt, udpAt, payloadAt         = 14, 34, 42
	ipSumAt, sourceAt, targetAt    = ipAt + 10, ipAt + 12, ipAt + 16
	sourcePortAt, portAt, udpSumAt = udpAt, udpAt + 2, udpAt + 6
)

// flowNumbers counts the flows of a world: each has an address and a port, which no
// other flow of the run has.
type flowNumbers struct{ next uint32 }

// sourceBase begins the addresses of flows, 198.18.0.0/15 (RFC 2544).
var sourceBase = binary.BigEndian.Uint32(netip.MustParseAddr("198.18.0.1").AsSlice())

func (f *flowNumbers) take() (addr uint32, port uint16) {
	addr, port = sourceBase+f.next/portCount, uint16(firstPort+f.next%portCount)
	f.next++
	return addr, port
}

// frames are UDP packets to the targets of a world, for the client's device.
type frames struct {
	batch *batch
	// ipSums and udpSums are what the checksums of each frame are made of, but for the
	// source.
	ipSums, udpSums []uint32
	numbers         *flowNumbers
}

// openFrames works in the namespace of the client. The caller closes the socket.
func (w *world) openFrames() (*datagrams, error) {
	out, err := netlink.LinkByName("port-" + w.node.Name())
	if err != nil {
		return nil, fmt.Errorf("find the client's device: %w", err)
	}
	var router netlink.Link
	err = w.node.Do(func() (err error) {
		router, err = netlink.LinkByName(lab.Uplink)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find the node's uplink: %w", err)
	}
	f := &frames{batch: newBatch(batchSize, payloadAt+requestSize), numbers: &w.flows}
	for i, b := range f.batch.packets {
		copy(b, router.Attrs().HardwareAddr)
		copy(b[6:], out.Attrs().HardwareAddr)
		f.fill(b, w.target(i))
	}
	fd, err := openDevice(out.Attrs().Index)
	return &datagrams{fd: fd, batch: f.batch, renew: f.renew}, err
}

// fill writes all of a frame but its addresses of link layer, source and checksums.
func (f *frames) fill(b []byte, to netip.AddrPort) {
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IP)
	b[ipAt] = 0x45
	binary.BigEndian.PutUint16(b[ipAt+2:], uint16(len(b)-ipAt))
	b[ipAt+6] = 0x40 // do not fragment
	b[ipAt+8] = 64   // TTL
	b[ipAt+9] = unix.IPPROTO_UDP
	copy(b[targetAt:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[portAt:], to.Port())
	length := len(b) - udpAt
	binary.BigEndian.PutUint16(b[udpAt+4:], uint16(length))
	f.ipSums = append(f.ipSums, sum(b[ipAt:udpAt]))
	f.udpSums = append(f.udpSums, sum(b[targetAt:udpAt])+unix.IPPROTO_UDP+uint32(length)+sum(b[udpAt:]))
}

// renew gives each frame a source of its own.
func (f *frames) renew() {
	for i, b := range f.batch.packets {
		addr, port := f.numbers.take()
		binary.BigEndian.PutUint32(b[sourceAt:], addr)
		binary.BigEndian.PutUint16(b[sourcePortAt:], port)
		source := addr>>16 + addr&0xffff
		binary.BigEndian.PutUint16(b[ipSumAt:], checksum(f.ipSums[i]+source))
		udp := checksum(f.udpSums[i] + source + uint32(port))
		if udp == 0 {
			udp = 0xffff // 0 means that there is none
		}
		binary.BigEndian.PutUint16(b[udpSumAt:], udp)
	}
}

// sum adds up the 16-bit words of b, whose length is even.
func sum(b []byte) (n uint32) {
	for ; len(b) > 0; b = b[2:] {
		n += uint32(binary.BigEndian.Uint16(b))
	}
	return n
}

func checksum(n uint32) uint16 {
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return ^uint16(n)
}

// openDevice returns a socket that writes frames to a device and receives nothing.
func openDevice(index int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index})
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("bind packet socket: %w", err), unix.Close(fd))
	}
	return fd, nil
}
