package lab

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// groupOf returns the control group of what runs in ns, as this process sees it.
func groupOf(t *testing.T, ns *NS) string {
	t.Helper()
	var path string
	err := ns.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/cgroup")
		_, rest, _ := strings.Cut(string(text), "0::")
		path, _, _ = strings.Cut(rest, "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWhatRunsOnANodeAndInItsPodsIsInItsControlGroup(t *testing.T) {
	l := newTestLab(t, Config{})
	own, err := ownCgroup()
	if err != nil {
		t.Fatal(err)
	}
	p := addTestPod(t, l.Nodes[0], "web")
	a, b := groupOf(t, l.Nodes[0].NS), groupOf(t, l.Nodes[1].NS)
	if a == own || b == own || a == b {
		t.Errorf("the process is in %s, the nodes are in %s and %s", own, a, b)
	}
	if got := groupOf(t, p.NS); got != a {
		t.Errorf("the pod is in %s, its node in %s", got, a)
	}
	if got := groupOf(t, l.Client); got != own {
		t.Errorf("the client is in %s, the process in %s", got, own)
	}
	err = l.Nodes[0].Do(func() error {
		_, err := os.Stat(filepath.Join(CgroupRoot, filepath.Base(a)))
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the node sees more than its own control group: %v", err)
		}
		// The root of the whole hierarchy has no such file.
		_, err = os.Stat(filepath.Join(CgroupRoot, "cgroup.type"))
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestControlGroupsGoWithTheLab(t *testing.T) {
	l := newTestLab(t, Config{})
	startIdle(t, l.Nodes[0].NS)
	cg := l.Nodes[0].cgroup
	dir := filepath.Join(cg.parent.Name(), cg.name)
	exists := func() bool {
		var err error
		if doErr := onMachine(func() { _, err = os.Stat(dir) }); doErr != nil {
			t.Fatal(doErr)
		}
		return err == nil
	}
	if !exists() {
		t.Fatalf("no control group %s", dir)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if exists() {
		t.Errorf("%s is left", dir)
	}
}

func TestALabIsNotBuiltInAChroot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes mounts")
	}
	dir := t.TempDir()
	got := make(chan error, 1)
	onOwnThread(func() {
		got <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return err
			}
			if err := unix.Mount("/", dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
				return err
			}
			if err := unix.Chroot(dir); err != nil {
				return err
			}
			_, err := unshareMounts()
			return err
		}()
	})
	if err := <-got; !errors.Is(err, errChroot) {
		t.Errorf("%v, want %v", err, errChroot)
	}
}

// onMachine calls fn where the whole hierarchy is mounted at CgroupRoot.
func onMachine(fn func()) error {
	done := make(chan error, 1)
	onOwnThread(func() {
		// A /sys of another network namespace can be mounted over that there is.
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			done <- err
			return
		}
		mounts, err := unshareMounts()
		if err != nil {
			done <- err
			return
		}
		defer mounts.Close()
		if err = mountCgroups(); err == nil {
			fn()
		}
		done <- err
	})
	return <-done
}
