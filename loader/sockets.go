package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// socketHook is one place where programs see the calls of sockets.
type socketHook struct {
	name    string // of the hook, as in its pin
	program string
	attach  ebpf.AttachType
}

// socketHooks returns the hooks in the order in which they get their programs:
// what shows backends as what was dialled is there before anything dials one.
// Detaching goes the other way.
func socketHooks() []socketHook {
	return []socketHook{
		{"release", "ebb_sock_release", ebpf.AttachCgroupInetSockRelease},
		{"getpeername4", "ebb_getpeername4", ebpf.AttachCgroupInet4GetPeername},
		{"getpeername6", "ebb_getpeername6", ebpf.AttachCgroupInet6GetPeername},
		{"recvmsg4", "ebb_recvmsg4", ebpf.AttachCGroupUDP4Recvmsg},
		{"recvmsg6", "ebb_recvmsg6", ebpf.AttachCGroupUDP6Recvmsg},
		{"sendmsg4", "ebb_sendmsg4", ebpf.AttachCGroupUDP4Sendmsg},
		{"sendmsg6", "ebb_sendmsg6", ebpf.AttachCGroupUDP6Sendmsg},
		{"connect4", "ebb_connect4", ebpf.AttachCGroupInet4Connect},
		{"connect6", "ebb_connect6", ebpf.AttachCGroupInet6Connect},
	}
}

// socketPrefix begins the names of the pins of links to control groups.
const socketPrefix = "cgroup-"

// SocketAttacher keeps the programs of sockets on a control group. What it
// attaches outlives it: links are pinned. It is safe for concurrent use.
type SocketAttacher struct {
	programs *Programs
	dir      string
	log      *slog.Logger

	mu       sync.Mutex
	root     *Cgroup // of the last Sync; nil: detached
	unserved error   // why the last Sync is not complete
}

// NewSocketAttacher returns a SocketAttacher that pins links in pinDir (see
// [LinksDir]) and attaches nothing yet. The programs stay the caller's and must
// live as long as Sync is called; they may be nil if only DetachAll is.
func NewSocketAttacher(programs *Programs, pinDir string, log *slog.Logger) *SocketAttacher {
	return &SocketAttacher{programs: programs, dir: pinDir, log: log}
}

// Sync makes all programs run on root, and on no other group. What an earlier
// agent left is taken over by replacing its program, without a gap. It is
// idempotent. root stays the caller's and must stay open while Verify is called.
func (a *SocketAttacher) Sync(root *Cgroup) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.root = root
	var errs []error
	for _, h := range socketHooks() {
		if err := a.sync(h, root); err != nil {
			errs = append(errs, fmt.Errorf("attach %s to the cgroup root: %w", h.name, err))
		}
	}
	a.unserved = errors.Join(errs...)
	return a.unserved
}

func (a *SocketAttacher) sync(h socketHook, root *Cgroup) error {
	p := a.programs.Sockets[h.program]
	if p == nil {
		return errors.New("the program is not loaded")
	}
	id, err := programID(p)
	if err != nil {
		return err
	}
	l, err := a.pinned(h)
	if err != nil {
		return err
	}
	if l != nil {
		defer l.Close()
		kept, err := a.keep(h, l, root, p, id)
		if err != nil || kept {
			return err
		}
	}
	return a.attach(h, root, p, id)
}

// pinned opens the pin of h; nil if there is none.
func (a *SocketAttacher) pinned(h socketHook) (link.Link, error) {
	l, err := link.LoadPinnedLink(a.pin(h), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return l, err
}

func (a *SocketAttacher) pin(h socketHook) string { return filepath.Join(a.dir, socketPrefix+h.name) }

// keep makes l run p. It returns false if l is not on root any more: then its pin
// is gone as well.
func (a *SocketAttacher) keep(h socketHook, l link.Link, root *Cgroup, p *ebpf.Program, id ebpf.ProgramID) (bool, error) {
	group, running, err := groupOf(l)
	if err != nil {
		return false, err
	}
	if group != root.id {
		a.log.Warn("socket program was on another control group, attaching again", "hook", h.name)
		return false, detachLink(l)
	}
	if running == id {
		return true, nil
	}
	if err := l.Update(p); err != nil {
		return true, fmt.Errorf("replace program %d: %w", running, err)
	}
	a.log.Debug("program replaced", "hook", h.name, "program", uint32(id), "was", uint32(running))
	return true, nil
}

func (a *SocketAttacher) attach(h socketHook, root *Cgroup, p *ebpf.Program, id ebpf.ProgramID) error {
	if err := os.MkdirAll(a.dir, dirMode); err != nil {
		return fmt.Errorf("create pin directory: %w", err)
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: root.open(), Attach: h.attach, Program: p})
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Pin(a.pin(h)); err != nil {
		return errors.Join(fmt.Errorf("pin link: %w", err), detachLink(l))
	}
	a.log.Info("attached", "cgroup", root.Path, "hook", h.name, "program", uint32(id))
	return nil
}

// groupOf returns the number of the group l is on, 0 if it is on none any more,
// and the program that runs there.
func groupOf(l link.Link) (uint64, ebpf.ProgramID, error) {
	info, err := l.Info()
	if err != nil {
		return 0, 0, err
	}
	on := info.Cgroup()
	if on == nil {
		return 0, 0, errors.New("the pin is not of a link to a control group")
	}
	return on.CgroupId, info.Program, nil
}

// detachLink takes l off its group, if that is still there, and removes its pin.
func detachLink(l link.Link) error {
	if err := l.Detach(); err != nil {
		return err
	}
	return l.Unpin()
}

// Attached reports whether all programs were brought onto a control group and are
// still there.
func (a *SocketAttacher) Attached() bool {
	a.mu.Lock()
	attached := a.root != nil
	a.mu.Unlock()
	return attached && a.Verify() == nil
}

// Verify asks the kernel whether every program of the last Sync is where it was
// put, and includes what that could not attach.
func (a *SocketAttacher) Verify() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.root == nil {
		return nil
	}
	errs := []error{a.unserved}
	for _, h := range socketHooks() {
		if err := a.verify(h); err != nil {
			errs = append(errs, fmt.Errorf("verify %s on the cgroup root: %w", h.name, err))
		}
	}
	return errors.Join(errs...)
}

func (a *SocketAttacher) verify(h socketHook) error {
	l, err := a.pinned(h)
	if err != nil {
		return err
	}
	if l == nil {
		return errors.New("no longer pinned")
	}
	defer l.Close()
	group, running, err := groupOf(l)
	if err != nil {
		return err
	}
	want, err := programID(a.programs.Sockets[h.program])
	switch {
	case err != nil:
		return err
	case group != a.root.id:
		return errors.New("no longer attached")
	case running != want:
		return fmt.Errorf("program %d runs instead of %d", running, want)
	}
	return nil
}

// DetachAll takes the programs off whatever group they are on, also those an
// earlier agent left, and removes the pins.
func (a *SocketAttacher) DetachAll() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.root, a.unserved = nil, nil
	var errs []error
	for _, h := range slices.Backward(socketHooks()) {
		l, err := a.pinned(h)
		if err == nil && l != nil {
			err = errors.Join(detachLink(l), l.Close())
			a.log.Info("detached", "hook", h.name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("detach %s from the cgroup root: %w", h.name, err))
		}
	}
	return errors.Join(errs...)
}
