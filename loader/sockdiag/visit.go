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

// Visit calls fn on a thread inside those of the wanted network namespaces that
// VisitAll finds, with the namespace's cookie; it takes out of want those it has
// been in, and ends when none is left.
func Visit(want map[uint64]bool, fn func(netns uint64) error) error {
	if len(want) == 0 {
		return nil
	}
	return visit(func(netns uint64) (more bool, err error) {
		if want[netns] {
			delete(want, netns)
			err = fn(netns)
		}
		return len(want) > 0, err
	})
}

// VisitAll calls fn on a thread inside each network namespace that a process of this
// machine is in, with the namespace's cookie. Only processes that /proc shows
// count: in a pod this takes the PID namespace of the machine.
//
// To move takes CAP_SYS_ADMIN. The caller's own namespace takes nothing: an agent that
// sees no other process, and may not move, still does its own.
//
// What is learned is forgotten at once: the kernel gives the inode of a namespace
// to another one as soon as it is gone.
func VisitAll(fn func(netns uint64) error) error {
	return visit(func(netns uint64) (more bool, err error) { return true, fn(netns) })
}

func visit(fn func(netns uint64) (more bool, err error)) (err error) {
	runtime.LockOSThread()
	own, err := os.Open(ownNS)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	moved := false
	defer func() { err = errors.Join(err, leave(own, moved)) }()
	here, err := os.Readlink(ownNS)
	if err != nil {
		return err
	}
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return err
	}
	var errs []error
	seen := make(map[string]bool)
	for _, path := range paths {
		name, err := os.Readlink(path)
		if err != nil || seen[name] {
			continue // the process has ended, or is where another one is
		}
		seen[name] = true
		var more bool
		if name == here && !moved {
			more, err = call(fn)
		} else {
			moved = true
			more, err = enter(path, fn)
		}
		errs = append(errs, err)
		if !more {
			break
		}
	}
	return errors.Join(errs...)
}

// call calls fn where the calling thread is.
func call(fn func(netns uint64) (more bool, err error)) (more bool, err error) {
	netns, err := loader.NetnsCookie()
	if err != nil {
		return true, err
	}
	return fn(netns)
}

// enter moves the calling thread and calls fn there.
func enter(path string, fn func(netns uint64) (more bool, err error)) (more bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return true, nil // the process has ended
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return true, fmt.Errorf("enter the network of %s: %w", path, err)
	}
	return call(fn)
}

// leave returns the calling thread to where it was. One that cannot go back stays
// locked, and is thrown away with its goroutine.
func leave(own *os.File, moved bool) error {
	defer own.Close()
	if !moved {
		runtime.UnlockOSThread()
		return nil
	}
	if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("leave a network: %w", err)
	}
	runtime.UnlockOSThread()
	return nil
}
