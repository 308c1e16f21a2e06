package responder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/agent/health"
)

const (
	// talkBound is how long the other side of the control socket may take.
	talkBound = 5 * time.Second
	// DefaultLinger is how long a responder waits for an agent before it ends.
	DefaultLinger = 10 * time.Minute
)

// Waits are how long a responder waits for others.
type Waits struct {
	// Agent: it ends when none has come for so long.
	Agent time.Duration
	// Successor: when it is told to end it goes on for so long, unless one takes over
	// before. Whoever replaces processes may end one before the next one has begun.
	Successor time.Duration
}

// process is a responder's.
type process struct {
	dir    string
	linger time.Duration
	log    *slog.Logger
	server *Server
	end    context.CancelFunc

	mu    sync.Mutex
	agent *net.UnixConn // the one that is listened to; nil: none
	alone *time.Timer   // ends the process; nil while there is an agent
}

// Run is a responder. It takes over from the one that is there, if any, and ends
// when it has a successor, is told to, no agent has come for too long, or told is done
// and nobody has succeeded in time. dir is shared with the agent; only one responder serves it.
func Run(told context.Context, dir string, waits Waits, log *slog.Logger) error {
	ctx, end := context.WithCancel(context.WithoutCancel(told))
	defer end()
	defer context.AfterFunc(told, func() { time.AfterFunc(waits.Successor, end) })()
	p := &process{dir: dir, linger: waits.Agent, log: log, end: end, server: NewServer(health.OrderFileIn(dir))}
	defer p.server.Close()
	defer p.leave()
	control, err := p.begin()
	if err != nil {
		return err
	}
	defer control.Close()
	defer context.AfterFunc(ctx, func() { control.Close() })()
	p.left(nil)
	log.Info("responder serves", "pid", os.Getpid(), "identity", Identity())
	for {
		conn, err := control.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close() // the caller hears that nobody is there any more
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("responder: %w", err)
		}
		go p.talk(conn)
	}
}

// begin takes over and opens the control socket. A lock keeps others from doing
// so at the same time.
func (p *process) begin() (*net.UnixListener, error) {
	unlock, err := lockDir(p.dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	predecessor, err := p.succeed()
	if err != nil {
		p.log.Error("cannot take over; probes are refused for a moment", "error", err)
		if err := Quit(p.dir); err != nil {
			return nil, err
		}
	}
	// Whoever connects from here on finds this responder.
	control, err := listenControl(p.dir)
	if err != nil {
		return nil, err
	}
	if predecessor != nil {
		defer predecessor.Close()
		if err := writeFrame(predecessor, done{}); err != nil {
			p.log.Error("take over", "error", err)
		}
	}
	return control, nil
}

// succeed takes over from the responder that is there; nil if there is none.
func (p *process) succeed() (*net.UnixConn, error) {
	conn, w, err := dial(p.dir, roleSuccessor)
	if errors.Is(err, errNobody) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p.log.Info("taking over", "pid", w.PID, "identity", w.Identity)
	if err := p.server.takeOver(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// listenControl replaces the control socket in one step.
func listenControl(dir string) (*net.UnixListener, error) {
	aside := socketPath(dir) + ".new"
	if err := os.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: aside, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // by then it may be a successor's
	err = errors.Join(os.Chmod(aside, 0o600), os.Rename(aside, socketPath(dir)))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), l.Close())
	}
	return l, nil
}

// lockDir makes dir and keeps other responders from starting in it.
func lockDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	f, err := os.OpenFile(lockPath(dir), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return func() { f.Close() }, nil
}

// talk serves one connection to the control socket.
func (p *process) talk(conn *net.UnixConn) {
	defer conn.Close()
	deadline(conn)
	var h hello
	err := readFrame(conn, &h)
	if err == nil {
		err = writeFrame(conn, welcome{Identity: Identity(), PID: os.Getpid()})
	}
	if err != nil {
		p.log.Warn("control socket", "error", err)
		return
	}
	switch h.Role {
	case roleAgent:
		p.listenTo(conn)
	case roleSuccessor:
		if err := p.server.handOver(conn); err != nil {
			p.log.Error("hand over", "error", err)
			return
		}
		p.log.Info("handed over")
		p.end()
	case roleQuit:
		p.log.Info("told to end")
		p.server.Close()
		p.end()
	}
}

// listenTo takes Updates until the agent is gone, or another one comes.
func (p *process) listenTo(conn *net.UnixConn) {
	p.arrived(conn)
	defer p.left(conn)
	for {
		deadline(conn)
		var u Update
		if err := readFrame(conn, &u); err != nil {
			p.log.Info("agent is gone", "reason", err)
			return
		}
		if err := writeFrame(conn, p.server.Apply(u)); err != nil {
			p.log.Info("agent is gone", "reason", err)
			return
		}
	}
}

// arrived makes conn the agent's; there is one at a time.
func (p *process) arrived(conn *net.UnixConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.agent != nil {
		p.agent.Close()
	}
	if p.alone != nil {
		p.alone.Stop()
	}
	p.agent, p.alone = conn, nil
}

// leave ends the agent's connection: it looks for a successor.
func (p *process) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.agent != nil {
		p.agent.Close()
	}
}

// left notes the end of the agent's connection.
func (p *process) left(conn *net.UnixConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.agent != conn {
		return
	}
	p.agent = nil
	p.alone = time.AfterFunc(p.linger, p.end)
}

// deadline bounds what comes next on the control socket; an agent is heard of
// more often.
func deadline(conn *net.UnixConn) {
	_ = conn.SetDeadline(time.Now().Add(talkBound)) // a closed one fails anyway
}
