package sockdiag

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/loader"
)

// ownNS is the network namespace of the calling thread.
const ownNS = "/proc/thread-self/ns/net"

// Visit calls fn on a thread inside each network namespace that a process of this
// machine is in, with the namespace's cookie, until want is empty; it takes out
// those it has been in. Only processes that /proc shows count: in a pod this takes
// the PID namespace of the machine.
//
// What is learned is forgotten at once: the kernel gives the inode of a namespace
// to another one as soon as it is gone.
func Visit(want map[uint64]bool, fn func(netns uint64) error) (err error) {
	if len(want) == 0 {
		return nil
	}
	runtime.LockOSThread()
	own, err := os.Open(ownNS)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() { err = errors.Join(err, leave(own)) }()
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return err
	}
	var errs []error
	seen := make(map[string]bool)
	for _, path := range paths {
		name, err := os.Readlink(path)
		if err != nil || seen[name] || len(want) == 0 {
			continue // the process has ended, or was not needed
		}
		seen[name] = true
		errs = append(errs, enter(path, want, fn))
	}
	return errors.Join(errs...)
}

// enter moves the calling thread, and calls fn if it is wanted there.
func enter(path string, want map[uint64]bool, fn func(netns uint64) error) error {
	f, err := os.Open(path)
	if err != nil {
		return nil // the process has ended
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network of %s: %w", path, err)
	}
	netns, err := loader.NetnsCookie()
	if err != nil || !want[netns] {
		return err
	}
	delete(want, netns)
	return fn(netns)
}

// leave returns the calling thread to where it was. One that cannot go back stays
// locked, and is thrown away with its goroutine.
func leave(own *os.File) error {
	defer own.Close()
	if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("leave a network: %w", err)
	}
	runtime.UnlockOSThread()
	return nil
}
