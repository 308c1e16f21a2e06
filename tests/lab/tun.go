package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrNoTun is the error of a kernel that has no tun devices.
var ErrNoTun = errors.New("tun devices (module tun)")

// OpenTun adds a tun device, whose packets have no Ethernet header, in the namespace
// of the calling thread. It is gone when the file, by which packets are read and
// written, is closed. edit, if it is not nil, is called with the file before the device
// is up.
func OpenTun(dev string, edit func(fd int) error) (*os.File, error) {
	fd, err := openTunDevice()
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(dev)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	if err == nil && edit != nil {
		err = edit(fd)
	}
	if err == nil {
		err = linkUp(dev)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make tun %s: %w", dev, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), dev), nil
}

// openTunDevice opens the device that makes others. Where nobody has made a node for
// it, opening one has the kernel load the module.
func openTunDevice() (int, error) {
	const flags = unix.O_RDWR | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Open("/dev/net/tun", flags, 0)
	if err == nil {
		return fd, nil
	}
	dir, err := os.MkdirTemp("", "tun")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	node := filepath.Join(dir, "tun")
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200))); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNoTun, err)
	}
	if fd, err = unix.Open(node, flags, 0); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNoTun, err)
	}
	return fd, nil
}

// Tunnel is a way between two namespaces by tun devices.
type Tunnel struct{ files [2]*os.File }

// Tunnel connects the client and n by tun devices of that name, with addresses of
// their own on both sides. The caller closes it.
func (l *Lab) Tunnel(n *Node, dev string, client, node []netip.Prefix) (*Tunnel, error) {
	t := &Tunnel{}
	for i, side := range []struct {
		ns    *NS
		addrs []netip.Prefix
	}{{l.Client, client}, {n.NS, node}} {
		err := side.ns.Do(func() (err error) {
			if t.files[i], err = OpenTun(dev, nil); err != nil {
				return err
			}
			for _, a := range side.addrs {
				if err := addAddr(dev, a); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
	}
	go relay(t.files[0], t.files[1])
	go relay(t.files[1], t.files[0])
	return t, nil
}

// relay copies packets until one of the files is closed.
func relay(from, to *os.File) {
	packet := make([]byte, 1<<16)
	for {
		n, err := from.Read(packet)
		if err != nil {
			return
		}
		// A device that is going down takes none.
		if _, err := to.Write(packet[:n]); errors.Is(err, os.ErrClosed) {
			return
		}
	}
}

// Close removes both devices.
func (t *Tunnel) Close() error {
	var errs []error
	for _, f := range t.files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
