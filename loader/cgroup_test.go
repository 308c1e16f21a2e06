package loader

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCgroupMountsAreFoundBesideAnythingElse(t *testing.T) {
	const mounts = `22 28 0:21 / /proc rw,nosuid - proc proc rw
30 25 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 /kubepods/x /run/some\040where rw,nosuid shared:5 - cgroup2 cgroup2 rw
32 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:6 master:1 - cgroup2 cgroup rw,nsdelegate
33 30 0:28 / /sys/fs/cgroup/cpu rw,nosuid - cgroup cgroup rw,cpu
`
	want := []string{"/sys/fs/cgroup/unified", "/run/some where"}
	if diff := cmp.Diff(want, cgroupMounts([]byte(mounts))); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
}

func TestWhatIsNoControlGroupIsRefused(t *testing.T) {
	for _, path := range []string{t.TempDir(), "/nonexistent", os.DevNull} {
		if c, err := OpenCgroup(path); err == nil {
			t.Errorf("%s: opened", path)
			c.Close()
		}
	}
}
