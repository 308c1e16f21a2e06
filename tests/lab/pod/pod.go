// Package pod is the application of a lab's pods: a small HTTP server and a
// UDP echo. When asked to end it keeps serving, finishes what is open, and leaves
// once nobody has asked for anything for a while; or, if it is a hasty one, it
// turns away what is new at once, as most applications do. It knows nothing
// about balancing or namespaces.
package pod

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// The ports a pod listens on.
const (
	HTTPPort = 8080
	UDPPort  = 5353
)

// Header is the HTTP header with the name of the pod that answers.
const Header = "X-Pod"

// Config describes a pod.
type Config struct {
	// Name is sent with each answer. It contains no space.
	Name string
	// Quiet is how long nothing must have been open or asked before a
	// draining pod ends, Bound how long it drains at most.
	Quiet, Bound time.Duration
	// Hasty pods stop to listen, and to answer datagrams, when asked to end.
	Hasty bool
	// Closed, if set, is called when a hasty pod has stopped to listen.
	Closed func()
}

// Server serves one pod. Use New, then Run once.
type Server struct {
	cfg      Config
	activity *activity
	// finishing: the pod is hasty and was asked to end.
	finishing atomic.Bool
}

// New returns a Server that does nothing yet.
func New(cfg Config) *Server { return &Server{cfg: cfg, activity: newActivity()} }

// Run serves l and c, and closes both, until ctx ends or, after drain is
// closed, the pod has been idle. It returns nil in both cases.
func (s *Server) Run(ctx context.Context, l net.Listener, c net.PacketConn, drain <-chan struct{}) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	srv := &http.Server{Handler: s.handler(), ConnState: s.connState, ReadHeaderTimeout: 10 * time.Second}
	srv.SetKeepAlivesEnabled(false) // one request per connection: no race between reuse and closing
	failed := make(chan error, 2)
	go func() { failed <- srv.Serve(l) }()
	go func() { failed <- s.echo(c) }()
	go func() {
		select {
		case <-drain:
			if s.cfg.Hasty {
				s.finish(ctx, srv, l, c)
			} else {
				s.activity.waitIdle(ctx, s.cfg.Quiet, s.cfg.Bound)
			}
			stop()
		case <-ctx.Done():
		}
	}()
	var err error
	select {
	case err = <-failed:
		err = s.failure(ctx, err)
	case <-ctx.Done():
	}
	return errors.Join(err, srv.Close(), ignoreClosed(c.Close()))
}

// finish turns away what is new and waits for what is open.
func (s *Server) finish(ctx context.Context, srv *http.Server, l net.Listener, c net.PacketConn) {
	s.finishing.Store(true)
	_, _ = l.Close(), c.Close()
	if s.cfg.Closed != nil {
		s.cfg.Closed()
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Bound)
	defer cancel()
	// Whatever is still open after the bound is closed with the server.
	_ = srv.Shutdown(ctx)
}

// failure is what err means: while the pod finishes, sockets are closed because it
// closed them; its end is then awaited.
func (s *Server) failure(ctx context.Context, err error) error {
	if s.finishing.Load() {
		<-ctx.Done()
		return nil
	}
	return fmt.Errorf("serve pod %s: %w", s.cfg.Name, err)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// connState keeps count of open connections.
func (s *Server) connState(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.activity.begin()
	case http.StateClosed, http.StateHijacked:
		s.activity.end()
	}
}

// echo answers each datagram with itself, a space, and the pod's name.
func (s *Server) echo(c net.PacketConn) error {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("read datagram: %w", err)
		}
		s.activity.touch()
		answer := append(buf[:n:n], ' ')
		answer = append(answer, s.cfg.Name...)
		// An answer that cannot be sent is a lost datagram; the client counts it.
		_, _ = c.WriteTo(answer, from)
	}
}
