package rig

import (
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
)

// Shot is a frame on its way into a hook.
type Shot struct {
	Hook  maps.Hook
	Frame []byte
}

// Race puts two frames through their hooks at the same moment, each on a CPU of
// its own, and returns what became of them. A counter is per CPU, so which
// verdict was whose is not known. It skips the test where there is one CPU only.
func (r *Rig) Race(tb testing.TB, a, b Shot) [2]Result {
	tb.Helper()
	all := r.RaceAll(tb, []Shot{a}, []Shot{b})
	return [2]Result{all[0][0], all[1][0]}
}

// RaceAll is Race for frames that follow each other on each of the two CPUs.
func (r *Rig) RaceAll(tb testing.TB, a, b []Shot) [2][]Result {
	tb.Helper()
	if r.lanes == nil {
		var err error
		if r.lanes, err = openLanes(r.World); err != nil {
			tb.Fatalf("two CPUs: %v", err)
		}
	}
	if len(r.lanes) < 2 {
		tb.Skip("there is one CPU only")
	}
	r.counts = nil
	var out [2][]Result
	var done [2]chan error
	var ready atomic.Int32
	for i, shots := range [][]Shot{a, b} {
		fire := r.prepare(shots, &out[i])
		done[i] = make(chan error, 1)
		r.lanes[i] <- func() {
			ready.Add(1)
			for ready.Load() < 2 { // not on a lock: it would wake them one after the other
				_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
			}
			done[i] <- fire()
		}
	}
	for _, d := range done {
		r.must(tb, <-d)
	}
	return out
}

// prepare returns what runs shots one after the other, with as little between them
// as can be.
func (r *Rig) prepare(shots []Shot, out *[]Result) func() error {
	*out = make([]Result, len(shots))
	all := make([]*ebpf.RunOptions, len(shots))
	for i, s := range shots {
		all[i] = r.options(s.Hook, s.Frame, Context{})
		all[i].DataOut = make([]byte, len(all[i].Data)+256)
	}
	return func() error {
		for i, s := range shots {
			code, err := r.Program(s.Hook).Run(all[i])
			if err != nil {
				return err
			}
			(*out)[i].Frame = all[i].DataOut
			if (*out)[i].Action, err = actionOf(s.Hook, int32(code)); err != nil {
				return err
			}
		}
		return nil
	}
}

// lane runs functions on a thread of its own, in the namespace of a World.
type lane chan func()

// openLanes returns one for each of two CPUs, or for the only one.
func openLanes(w *World) (lanes []lane, err error) {
	var ns *os.File
	err = w.Do(func() (err error) {
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	cpus, err := usableCPUs(2)
	if err != nil {
		return nil, err
	}
	for _, cpu := range cpus {
		l := make(lane)
		ready := make(chan error)
		go l.run(cpu, int(ns.Fd()), ready)
		if err := <-ready; err != nil {
			closeLanes(lanes)
			return nil, err
		}
		lanes = append(lanes, l)
	}
	return lanes, nil
}

// run never unlocks its thread, so that the runtime discards it.
func (l lane) run(cpu, ns int, ready chan<- error) {
	runtime.LockOSThread()
	err := pin(cpu, ns)
	ready <- err
	if err != nil {
		return
	}
	for fn := range l {
		fn()
	}
}

func pin(cpu, ns int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to CPU %d: %w", cpu, err)
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the namespace: %w", err)
	}
	return nil
}

// usableCPUs returns up to n of those this process may run on.
func usableCPUs(n int) (cpus []int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("read CPUs: %w", err)
	}
	possible, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	for cpu := 0; cpu < possible && len(cpus) < n; cpu++ {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

func closeLanes(lanes []lane) {
	for _, l := range lanes {
		close(l)
	}
}
