package responder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/ebb-lb/ebb/agent/health"
	"github.com/ebb-lb/ebb/agent/version"
)

const (
	// heartbeat is how often an agent speaks even if nothing has changed.
	heartbeat = time.Second
	// lookAgain is how often a responder is looked for.
	lookAgain = 50 * time.Millisecond
	startMost = 10 * time.Second
)

var errNobody = errors.New("no responder")

// Identity tells builds of this program apart, also those of one version.
var Identity = sync.OnceValue(func() string {
	identity := version.Get().Version
	if exe, err := os.Stat("/proc/self/exe"); err == nil {
		identity += fmt.Sprintf(" %d %d", exe.Size(), exe.ModTime().UnixNano())
	}
	return identity
})

// dial connects to the responder of a state directory.
func dial(dir, role string) (*net.UnixConn, welcome, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socketPath(dir), Net: "unix"})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, welcome{}, errNobody
	}
	if err != nil {
		return nil, welcome{}, fmt.Errorf("responder: %w", err)
	}
	deadline(conn)
	var w welcome
	if err := errors.Join(writeFrame(conn, hello{role}), readFrame(conn, &w)); err != nil {
		return nil, w, errors.Join(fmt.Errorf("responder: %w", err), conn.Close())
	}
	return conn, w, nil
}

// cutOff reports whether err is what is left of a conversation whose other side
// has ended.
func cutOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// PID returns the process id of the responder of a state directory, 0 if there
// is none.
func PID(dir string) (int, error) {
	conn, w, err := dial(dir, roleVisitor)
	if errors.Is(err, errNobody) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return w.PID, conn.Close()
}

// Quit ends the responder of a state directory, and returns when its sockets
// are closed. That there is none is no error.
func Quit(dir string) error {
	for deadline := time.Now().Add(talkBound); ; time.Sleep(quitAgain) {
		conn, _, err := dial(dir, roleQuit)
		if errors.Is(err, errNobody) {
			return nil
		}
		// One that is ending anyway may take the call and hang up. It, or who
		// comes after it, is asked again until nobody is there.
		if cutOff(err) && time.Now().Before(deadline) {
			continue
		}
		if err != nil {
			return err
		}
		return awaitEnd(conn)
	}
}

// quitAgain is how soon a responder that hung up is called again.
const quitAgain = 10 * time.Millisecond

// awaitEnd waits until a responder that was told to end does.
func awaitEnd(conn *net.UnixConn) error {
	defer conn.Close()
	if err := readFrame(conn, &done{}); !cutOff(err) {
		return fmt.Errorf("responder does not end: %w", err)
	}
	return nil
}

// Remove ends the responder and removes what there is in its state directory,
// which is removed too unless there is something else.
func Remove(dir string) error {
	if err := Quit(dir); err != nil {
		return err
	}
	var errs []error
	for _, path := range []string{socketPath(dir), lockPath(dir), logPath(dir), string(health.OrderFileIn(dir))} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := os.Remove(dir); err != nil && !staysBehind(err) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// staysBehind reports whether a directory cannot go for a reason that is none of ours: it is
// not there, has files of others in it, or is a mount of this container, whose root
// may be read-only.
func staysBehind(err error) bool {
	for _, e := range []error{fs.ErrNotExist, syscall.ENOTEMPTY, syscall.EBUSY, syscall.EROFS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Client is an agent's side.
type Client struct {
	Dir string
	// Start starts a responder that outlives this process and takes over from
	// the one there is; nil: somebody else starts it.
	Start func() error
	// Update returns what to tell, Report is told what came back.
	Update func() Update
	Report func(Status)
	// Changed delivers a value when Update has something new.
	Changed <-chan struct{}
	Log     *slog.Logger
}

// Run tells the responder until ctx is done, whatever happens to it. It returns
// an error if none can be started at first.
func (c *Client) Run(ctx context.Context) error {
	for first := true; ; first = false {
		err := c.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if first && errors.Is(err, errStart) {
			return err
		}
		c.Log.Warn("responder", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lookAgain):
		}
	}
}

var errStart = errors.New("start a responder")

// session is one connection to a responder.
func (c *Client) session(ctx context.Context) error {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	return push(ctx, c.Changed, func() error {
		deadline(conn)
		var s Status
		if err := errors.Join(writeFrame(conn, c.Update()), readFrame(conn, &s)); err != nil {
			return err
		}
		c.Report(s)
		return nil
	})
}

// push calls tell now, after each change, and now and then.
func push(ctx context.Context, changed <-chan struct{}, tell func() error) error {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		if err := tell(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		}
	}
}

// connect returns a connection to a responder, which is of this build if it is
// the agent that starts them.
func (c *Client) connect(ctx context.Context) (*net.UnixConn, error) {
	conn, w, err := dial(c.Dir, roleAgent)
	if c.Start == nil {
		return conn, err
	}
	switch {
	case err == nil && w.Identity == Identity():
		return conn, nil
	case err == nil:
		c.Log.Info("replacing the responder of another build", "identity", w.Identity)
		conn.Close()
	case !errors.Is(err, errNobody):
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("%w: %w", errStart, err)
	}
	return c.await(ctx)
}

// await waits for the responder that was started.
func (c *Client) await(ctx context.Context) (*net.UnixConn, error) {
	ctx, cancel := context.WithTimeout(ctx, startMost)
	defer cancel()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		conn, w, err := dial(c.Dir, roleAgent)
		if err == nil && w.Identity == Identity() {
			return conn, nil
		}
		if err == nil {
			conn.Close()
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: it does not answer", errStart)
		case <-tick.C:
		}
	}
}

// Serve answers probes in this process, without a responder, until ctx is done.
func (c *Client) Serve(ctx context.Context, s *Server) error {
	tell := func() error { c.Report(s.Apply(c.Update())); return nil }
	err := push(ctx, c.Changed, tell)
	_ = tell() // that it is closing
	s.Close()
	return err
}
