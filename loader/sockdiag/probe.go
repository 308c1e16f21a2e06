package sockdiag

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
)

// ErrUnsupported is that the kernel closes no sockets for others.
var ErrUnsupported = errors.New("the kernel cannot close sockets (CONFIG_INET_UDP_DIAG, CONFIG_INET_DIAG_DESTROY)")

// Probe finds out whether the kernel closes sockets, by one of its own: it is
// connected to a port of this machine and sends nothing.
func Probe() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("probe closing of sockets: %w", err)
	}
	defer unix.Close(fd)
	discard := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}
	if err := unix.Connect(fd, discard); err != nil {
		return fmt.Errorf("probe closing of sockets: %w", err)
	}
	if err := closeOwn(fd); err != nil {
		return fmt.Errorf("probe closing of sockets: %w", err)
	}
	return nil
}

// closeOwn destroys fd and looks whether that was done.
func closeOwn(fd int) error {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return err
	}
	sockets, err := List(maps.UDP)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return ErrUnsupported
	}
	if err != nil {
		return err
	}
	for _, s := range sockets {
		if s.Cookie != cookie {
			continue
		}
		if err := Destroy(s); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if syscall.Errno(got) != unix.ECONNABORTED {
		return ErrUnsupported
	}
	return nil
}
