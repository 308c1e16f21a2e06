package loader

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrLocked means that another agent owns the pins.
var ErrLocked = errors.New("another agent owns it")

// Lock is the ownership of a directory: of pins, or of an agent's state. Two
// agents never have it at the same time; the kernel takes it back when the
// process ends, however it ends. Those who only read need none.
type Lock struct {
	dir *os.File
}

// AcquireLock takes the ownership of dir, which must exist, without waiting. The error
// wraps [ErrLocked] if another agent has it.
func AcquireLock(dir string) (*Lock, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrLocked
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return &Lock{dir: f}, nil
}

// Release gives the ownership back.
func (l *Lock) Release() error { return l.dir.Close() }
