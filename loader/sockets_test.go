package loader

import (
	"errors"
	"log/slog"
	"os"
	"testing"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// newGroup makes a control group without processes: programs on it meet nobody.
func newGroup(t *testing.T) *Cgroup {
	t.Helper()
	needRoot(t)
	mount, err := mountCgroup()
	must(t, "mount", err)
	dir, err := os.MkdirTemp(mount.open(), "ebb-test-")
	must(t, "make group", err)
	t.Cleanup(func() {
		err := unix.Rmdir(dir)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			t.Errorf("remove group: %v", err)
		}
		must(t, "unmount", mount.Close())
	})
	c, err := OpenCgroup(dir)
	must(t, "open group", err)
	t.Cleanup(func() { c.Close() })
	return c
}

func newSocketAttacher(t *testing.T, dir string) *SocketAttacher {
	t.Helper()
	c := validConfig()
	c.Sockets = true
	p, err := Load(c, newSet(t))
	must(t, "load", err)
	t.Cleanup(func() { p.Close() })
	return NewSocketAttacher(p, dir, slog.New(slog.DiscardHandler))
}

// socketLinks returns the ids of the pinned links by hook.
func socketLinks(t *testing.T, a *SocketAttacher) map[string]link.ID {
	t.Helper()
	ids := make(map[string]link.ID)
	for _, h := range socketHooks() {
		l, err := a.pinned(h)
		must(t, "open pin", err)
		if l == nil {
			continue
		}
		info, err := l.Info()
		must(t, "link info", err)
		ids[h.name] = info.ID
		l.Close()
	}
	return ids
}

func TestTheNextAgentReplacesProgramsOfSocketsInPlace(t *testing.T) {
	root, dir := newGroup(t), LinksDir(newBPFFS(t))
	first := newSocketAttacher(t, dir)
	must(t, "sync", first.Sync(root))
	must(t, "verify", first.Verify())
	before := socketLinks(t, first)
	if len(before) != len(socketHooks()) {
		t.Fatalf("pinned are %v", before)
	}
	second := newSocketAttacher(t, dir)
	must(t, "sync", second.Sync(root))
	must(t, "verify", second.Verify())
	for name, id := range socketLinks(t, second) {
		if before[name] != id {
			t.Errorf("%s: link %d instead of %d", name, id, before[name])
		}
	}
	if first.Verify() == nil {
		t.Error("the first agent believes its programs run")
	}
	must(t, "detach", NewSocketAttacher(nil, dir, slog.New(slog.DiscardHandler)).DetachAll())
	if left := socketLinks(t, second); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
	if second.Verify() == nil {
		t.Error("nothing is attached, and nobody notices")
	}
}

func TestProgramsOfSocketsMoveToAnotherGroup(t *testing.T) {
	a := newSocketAttacher(t, LinksDir(newBPFFS(t)))
	for range 2 {
		must(t, "sync", a.Sync(newGroup(t)))
		must(t, "verify", a.Verify())
	}
	must(t, "detach", a.DetachAll())
}
