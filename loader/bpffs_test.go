package loader

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// onFS reports the kernel's answer, not the package's.
func onFS(t testing.TB, path string) bool {
	t.Helper()
	var st unix.Statfs_t
	must(t, "statfs", unix.Statfs(path, &st))
	return uint32(st.Type) == unix.BPF_FS_MAGIC
}

func TestEnsureBPFFSMountsAtAnEmptyDirectory(t *testing.T) {
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "a", "ebb")
	t.Cleanup(func() { must(t, "unmount", unix.Unmount(dir, 0)) })
	for range 2 { // the second time there is nothing to do; a second mount would fail to unmount
		must(t, "ensure", EnsureBPFFS(dir))
	}
	if !onFS(t, dir) {
		t.Error("no bpf filesystem is mounted")
	}
	if onFS(t, filepath.Dir(dir)) {
		t.Error("the parent is a bpf filesystem too")
	}
}

func TestEnsureBPFFSUsesTheFilesystemThatIsThere(t *testing.T) {
	dir := filepath.Join(newBPFFS(t), "ebb", "x")
	must(t, "ensure", EnsureBPFFS(dir))
	fi, err := os.Stat(dir)
	must(t, "stat", err)
	if !fi.IsDir() || fi.Mode().Perm() != 0o700 {
		t.Errorf("%s has mode %s, want a directory for root only", dir, fi.Mode())
	}
}

func TestEnsureBPFFSMountsWhereDistributionsDo(t *testing.T) {
	needRoot(t)
	runtime.LockOSThread() // never unlocked: the mount namespace goes with the thread
	must(t, "new mount namespace", unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS))
	must(t, "make mounts private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(t, "hide the real one", unix.Mount("tmpfs", "/sys", "tmpfs", 0, ""))
	must(t, "mkdir", os.MkdirAll("/sys/fs/bpf", 0o755))
	must(t, "ensure", EnsureBPFFS(DefaultDir))
	if !onFS(t, "/sys/fs/bpf") {
		t.Error("/sys/fs/bpf is no bpf filesystem")
	}
	if fi, err := os.Stat(DefaultDir); err != nil || !fi.IsDir() {
		t.Errorf("stat %s: %v", DefaultDir, err)
	}
}

func TestEnsureBPFFSRefuses(t *testing.T) {
	needRoot(t)
	full := t.TempDir()
	must(t, "write", os.WriteFile(filepath.Join(full, "diary"), nil, 0o600))
	for name, tc := range map[string]struct{ dir, want string }{
		"a directory with other files": {full, "holds other files (diary)"},
		"a relative path":              {"ebb", "must be absolute"},
		"a path through a file":        {filepath.Join(full, "diary", "x"), "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := errString(EnsureBPFFS(tc.dir)); !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
