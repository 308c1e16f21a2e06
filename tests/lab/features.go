package lab

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Switch is a wish about one feature of a device.
type Switch uint8

// The zero Switch leaves the feature as the kernel has it.
const (
	Keep Switch = iota
	On
	Off
)

// Features are the offloads of a device.
type Features struct {
	// TxChecksum off makes the device finish checksums before it sends.
	TxChecksum Switch
	// ScatterGather, TSO and GSO off make it send packets no larger than its
	// MTU, in one piece.
	ScatterGather, TSO, GSO Switch
	// GRO on makes a veth receive by NAPI.
	GRO Switch
	// PassXDP gives the device a program that passes everything: see AttachPass.
	PassXDP bool
	// VLAN off keeps VLAN tags in the packet, both ways.
	VLAN Switch
}

// NativeXDPPeer is what the other end of a veth with a native XDP program
// needs: checksums XDP can rely on, packets no larger than the MTU, and NAPI and a
// program, without which the kernel drops what XDP sends by a redirect or XDP_TX.
func NativeXDPPeer() Features {
	return Features{TxChecksum: Off, ScatterGather: Off, TSO: Off, GSO: Off, GRO: On, VLAN: Off, PassXDP: true}
}

// vlanFlags are ETH_FLAG_TXVLAN and ETH_FLAG_RXVLAN of linux/ethtool.h.
const vlanFlags = 1<<7 | 1<<8

// setFeatures changes dev in the namespace of the calling thread.
func setFeatures(dev string, f Features) error {
	simple := []struct {
		name string
		want Switch
		cmd  uint32
	}{
		{"tx checksum", f.TxChecksum, unix.ETHTOOL_STXCSUM},
		{"scatter-gather", f.ScatterGather, unix.ETHTOOL_SSG},
		{"TSO", f.TSO, unix.ETHTOOL_STSO},
		{"GSO", f.GSO, unix.ETHTOOL_SGSO},
		{"GRO", f.GRO, unix.ETHTOOL_SGRO},
	}
	var errs []error
	for _, s := range simple {
		if s.want == Keep {
			continue
		}
		_, err := ethtool(dev, s.cmd, boolValue(s.want == On))
		if s.want == Off && errors.Is(err, unix.EOPNOTSUPP) {
			continue // what a device cannot do is off: a veth loses TSO to XDP on its peer
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("set %s of %s: %w", s.name, dev, err))
		}
	}
	if f.VLAN != Keep {
		errs = append(errs, setVLANOffload(dev, f.VLAN == On))
	}
	if f.PassXDP {
		errs = append(errs, AttachPass(dev))
	}
	return errors.Join(errs...)
}

func setVLANOffload(dev string, on bool) error {
	flags, err := ethtool(dev, unix.ETHTOOL_GFLAGS, 0)
	if err != nil {
		return fmt.Errorf("read flags of %s: %w", dev, err)
	}
	flags &^= vlanFlags
	if on {
		flags |= vlanFlags
	}
	if _, err := ethtool(dev, unix.ETHTOOL_SFLAGS, flags); err != nil {
		return fmt.Errorf("set VLAN offload of %s: %w", dev, err)
	}
	return nil
}

func boolValue(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// ethtoolValue is struct ethtool_value.
type ethtoolValue struct {
	cmd, data uint32
}

// ifreq is struct ifreq with a pointer in its union.
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [24 - unsafe.Sizeof(uintptr(0))]byte
}

// ethtool performs one command of linux/ethtool.h that carries a single value
// and returns the value afterwards.
func ethtool(dev string, cmd, data uint32) (uint32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	value := &ethtoolValue{cmd: cmd, data: data}
	req := &ifreq{data: unsafe.Pointer(value)}
	if copy(req.name[:unix.IFNAMSIZ-1], dev) < len(dev) {
		return 0, fmt.Errorf("device name %q is too long", dev)
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(req)))
	if errno != 0 {
		return 0, errno
	}
	return value.data, nil
}
