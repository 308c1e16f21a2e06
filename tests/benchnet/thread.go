package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
)

// thread is a running function.
type thread struct {
	done chan struct{}
	err  error // set before done is closed
}

// start runs fn on a thread of its own in ns, pinned to a CPU.
func start(ns *lab.NS, nice int, fn func() error) *thread {
	t := &thread{done: make(chan struct{})}
	go func() {
		defer close(t.done)
		t.err = ns.Do(func() error {
			if err := pin(); err != nil {
				return err
			}
			if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil {
				return fmt.Errorf("set nice value to %d: %w", nice, err)
			}
			return fn()
		})
	}()
	return t
}

func wait(threads ...*thread) error {
	var errs []error
	for _, t := range threads {
		<-t.done
		errs = append(errs, t.err)
	}
	return errors.Join(errs...)
}

// pin keeps the calling thread, which must be locked and expendable, on the last CPU
// it may use. Clients and servers share that CPU, and the node does its work where
// the sender of a packet is: a rate is what all of it takes together. With servers on
// another CPU rates were lower and varied more: see docs/performance.md.
func pin() error {
	var allowed, last unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return fmt.Errorf("get CPUs of thread: %w", err)
	}
	for cpu, left := 0, allowed.Count(); left > 0; cpu++ {
		if allowed.IsSet(cpu) {
			if left--; left == 0 {
				last.Set(cpu)
			}
		}
	}
	if err := unix.SchedSetaffinity(0, &last); err != nil {
		return fmt.Errorf("pin thread: %w", err)
	}
	return nil
}
