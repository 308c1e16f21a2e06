package loader

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestTheCgroupRootIsTheMachinesOwn(t *testing.T) {
	const (
		v1      = "30 25 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n33 30 0:28 / /sys/fs/cgroup/cpu rw,nosuid - cgroup cgroup rw,cpu\n"
		unified = "32 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:6 master:1 - cgroup2 cgroup rw,nsdelegate\n"
		v2      = "35 25 0:27 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
		// Of others, which mountinfo may show before.
		stranger  = "21 28 0:27 / /tmp/lab-7/cg rw,relatime - cgroup2 none rw\n"
		stranger2 = "99 28 0:27 / /run/some\\040where rw,relatime - cgroup2 none rw\n"
		part      = "22 28 0:27 /kubepods/x /run/part rw,nosuid shared:5 - cgroup2 cgroup2 rw\n"
		// Docker's, without and with a cgroup namespace of the container.
		docker  = "36 25 0:27 /docker/7 /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n"
		private = "36 25 0:27 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n"
		host    = "37 25 0:27 /../.. /host/cgroup rw - cgroup2 cgroup2 rw\n"
	)
	tests := []struct {
		name         string
		mounts       string
		whole, parts []string
	}{
		{"cgroup v2 alone", v2, []string{"/sys/fs/cgroup"}, nil},
		{"beside v1", v1 + unified, []string{"/sys/fs/cgroup/unified"}, nil},
		{"v2, and a stranger's mount", stranger + v2 + stranger2, []string{"/sys/fs/cgroup", "/tmp/lab-7/cg", "/run/some where"}, nil},
		{"beside v1, and a stranger's mount", stranger + v1 + unified, []string{"/sys/fs/cgroup/unified", "/tmp/lab-7/cg"}, nil},
		{"both of the usual ones", unified + v2, []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}, nil},
		{"one above the other", v2 + v2, []string{"/sys/fs/cgroup"}, nil},
		{"v1 alone, and a stranger's mount", v1 + stranger, []string{"/tmp/lab-7/cg"}, nil},
		{"v1 alone, and a part", v1 + part, nil, []string{"/run/part"}},
		{"a container", stranger + docker, []string{"/sys/fs/cgroup", "/tmp/lab-7/cg"}, nil},
		{"a container with a cgroup namespace", private + host, []string{"/sys/fs/cgroup"}, []string{"/host/cgroup"}},
		{"none", v1, nil, nil},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			whole, parts := cgroupMounts([]byte("22 28 0:21 / /proc rw,nosuid - proc proc rw\n" + tc.mounts))
			if diff := cmp.Diff(tc.whole, whole); diff != "" {
				t.Errorf("of the whole hierarchy (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.parts, parts); diff != "" {
				t.Errorf("of parts (-want +got):\n%s", diff)
			}
		})
	}
}

// A second mount, made and found before the machine's, is not taken for it.
func TestAMountOfAStrangerIsNotTheCgroupRoot(t *testing.T) {
	needRoot(t)
	want, err := OpenCgroup("")
	must(t, "open", err)
	defer want.Close()
	dir := t.TempDir()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with its mounts
		done <- inStrangersMounts(dir, want.id)
	}()
	must(t, "in a mount namespace", <-done)
}

// inStrangersMounts has the root of a group of its own at the usual place, and a
// mount of the whole hierarchy at dir.
func inStrangersMounts(dir string, machine uint64) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("cgroup2", dir, "cgroup2", 0, ""); err != nil {
		return err
	}
	group := filepath.Join(dir, fmt.Sprint("ebb-test-root-", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		return err
	}
	defer os.Remove(group)
	if err := unix.Mount(group, "/sys/fs/cgroup", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	defer unix.Unmount("/sys/fs/cgroup", unix.MNT_DETACH)
	mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	whole, _ := cgroupMounts(mounts)
	if len(whole) == 0 || whole[0] != "/sys/fs/cgroup" {
		return fmt.Errorf("found are %v", whole)
	}
	c := firstCgroup(whole)
	if c == nil {
		return fmt.Errorf("none of %v can be opened", whole)
	}
	defer c.Close()
	if c.id == machine || c.IsRoot() {
		return fmt.Errorf("%s is the root of the machine", c.Path)
	}
	return nil
}

func TestWhatIsNoControlGroupIsRefused(t *testing.T) {
	for _, path := range []string{t.TempDir(), "/nonexistent", os.DevNull} {
		if c, err := OpenCgroup(path); err == nil {
			t.Errorf("%s: opened", path)
			c.Close()
		}
	}
}
