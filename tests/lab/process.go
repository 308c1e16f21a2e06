package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// ioGrace is how long output of a dead process is waited for.
const ioGrace = 2 * time.Second

// Process is a program running in a namespace. Its methods are safe for
// concurrent use.
type Process struct {
	ns   *NS
	cmd  *exec.Cmd
	done chan struct{}
	err  error // set before done is closed
}

// Start starts cmd in the namespace. The program is in a process group of its
// own, and killed by the kernel if this process dies first. The caller need
// not wait for it: it is killed with its pod, or with the lab.
//
// cmd must not have been started; its SysProcAttr and WaitDelay are replaced.
func (ns *NS) Start(cmd *exec.Cmd) (*Process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.WaitDelay = ioGrace
	p := &Process{ns: ns, cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	// The kernel ties the parent-death signal to the thread that started the
	// program, so this thread stays until the program has ended.
	onOwnThread(func() {
		if err := p.start(); err != nil {
			started <- err
			return
		}
		started <- nil
		p.err = cmd.Wait()
		ns.processes.remove(p)
		close(p.done)
	})
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", cmd.Path, ns.name, err)
	}
	return p, nil
}

func (p *Process) start() error {
	if err := p.ns.enter(); err != nil {
		return err
	}
	return p.ns.processes.start(p)
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and its output has been read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the process ended, as (*exec.Cmd).Wait does. It is nil until
// Done is closed.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Signal sends sig. A process that has ended is no error.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s to pid %d: %w", sig, p.PID(), err)
	}
	return nil
}

// Kill ends the process at once (SIGKILL) and waits until it is gone.
func (p *Process) Kill() error {
	err := p.Signal(syscall.SIGKILL)
	if err == nil {
		<-p.done
	}
	return err
}

// Stop asks the process to end (SIGTERM), waits for it until ctx ends, and
// then kills it.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return p.Kill()
	}
}

// processes are those that run in a lab.
type processes struct {
	mu     sync.Mutex
	closed bool
	all    map[*Process]struct{}
}

func newProcesses() *processes { return &processes{all: map[*Process]struct{}{}} }

// start starts p unless the lab is closed, so that no process escapes close.
func (ps *processes) start(p *Process) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.closed {
		return os.ErrClosed
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	ps.all[p] = struct{}{}
	return nil
}

func (ps *processes) remove(p *Process) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	delete(ps.all, p)
}

// close kills and awaits every process; none can be started afterwards.
func (ps *processes) close() {
	ps.mu.Lock()
	ps.closed = true
	ps.mu.Unlock()
	ps.stop(func(*Process) bool { return true })
}

// stopIn kills and awaits the processes of one namespace.
func (ps *processes) stopIn(ns *NS) {
	ps.stop(func(p *Process) bool { return p.ns == ns })
}

func (ps *processes) stop(which func(*Process) bool) {
	ps.mu.Lock()
	var chosen []*Process
	for p := range ps.all {
		if which(p) {
			chosen = append(chosen, p)
		}
	}
	ps.mu.Unlock()
	for _, p := range chosen {
		// Only a process that has ended cannot be killed by root.
		_ = p.Signal(syscall.SIGKILL)
	}
	for _, p := range chosen {
		<-p.done
	}
}
