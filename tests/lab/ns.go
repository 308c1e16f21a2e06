package lab

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// NS is an anonymous network namespace, kept alive by an open file. Nodes have
// a mount namespace as well. Its methods are safe for concurrent use.
type NS struct {
	name      string
	processes *processes

	mu     sync.RWMutex // held for reading while a thread enters
	net    *os.File
	mounts *os.File // nil: the mounts of the process
	cgroup *cgroup  // nil: that of the process
	owner  bool     // the cgroup goes with the namespace
}

// newNS creates a namespace with its loopback device up. As a machine it gets a
// private view of /sys, and filesystems for BPF and control groups nobody else
// has.
func newNS(name string, machine bool, p *processes) (*NS, error) {
	ns := &NS{name: name, processes: p}
	done := make(chan error, 1)
	onOwnThread(func() { done <- ns.create(machine) })
	if err := <-done; err != nil {
		return nil, errors.Join(fmt.Errorf("create namespace %s: %w", name, err), ns.closeFiles())
	}
	return ns, nil
}

// create runs on the thread that becomes the first member of the namespace.
func (ns *NS) create(machine bool) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare network: %w", err)
	}
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	ns.net = f
	if machine {
		if ns.mounts, err = unshareMounts(); err != nil {
			return err
		}
		ns.owner = true
		if ns.cgroup, err = newCgroup(ns.name); err != nil {
			return err
		}
	}
	if err := setQuickIPv6(); err != nil {
		return err
	}
	return linkUp("lo")
}

// Name returns the name the namespace has within its lab. The kernel knows none.
func (ns *NS) Name() string { return ns.name }

// Do runs fn on a thread inside the namespace, which is thrown away
// afterwards. fn must not start goroutines that rely on the namespace; sockets
// and files it opens stay what they are and may be used anywhere.
func (ns *NS) Do(fn func() error) error {
	done := make(chan error, 1)
	onOwnThread(func() {
		if err := ns.enter(); err != nil {
			done <- err
			return
		}
		done <- fn()
	})
	if err := <-done; err != nil {
		return fmt.Errorf("in namespace %s: %w", ns.name, err)
	}
	return nil
}

// enter moves the calling thread, which must be locked and expendable.
func (ns *NS) enter() error {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	if ns.net == nil {
		return fmt.Errorf("enter: %w", os.ErrClosed)
	}
	if err := unix.Setns(int(ns.net.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network: %w", err)
	}
	if ns.cgroup != nil {
		if err := ns.cgroup.join(); err != nil {
			return err
		}
	}
	if ns.mounts == nil {
		return nil
	}
	// The kernel moves a thread to other mounts only if it shares root and
	// working directory with no other thread.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare working directory: %w", err)
	}
	if err := unix.Setns(int(ns.mounts.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter mounts: %w", err)
	}
	return nil
}

// close removes the links, which sockets that are still open would keep, and
// gives up the namespace. Closing twice is no error.
func (ns *NS) close() error {
	ns.mu.RLock()
	closed := ns.net == nil
	ns.mu.RUnlock()
	if closed {
		return nil
	}
	err := ns.Do(deleteLinks)
	return errors.Join(err, ns.closeFiles())
}

func (ns *NS) closeFiles() error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	var errs []error
	for _, f := range []*os.File{ns.net, ns.mounts} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if ns.cgroup != nil && ns.owner {
		errs = append(errs, ns.cgroup.close())
	}
	ns.net, ns.mounts, ns.cgroup = nil, nil, nil
	return errors.Join(errs...)
}
