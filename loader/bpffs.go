package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultDir is where pins live unless the operator says otherwise.
const DefaultDir = "/sys/fs/bpf/ebb"

// bpffsRoot is where distributions mount the bpf filesystem. The kernel
// provides the directory even if nobody mounted anything on it.
const bpffsRoot = "/sys/fs/bpf"

// dirMode keeps pins to root: whoever may open a map may break connections.
const dirMode = 0o700

// EnsureBPFFS makes dir an existing directory on a bpf filesystem. Where there
// is none yet it mounts one: at /sys/fs/bpf if dir is below it, else at dir
// itself, which must then be empty. It is idempotent.
func EnsureBPFFS(dir string) error {
	if err := ensureBPFFS(filepath.Clean(dir)); err != nil {
		return fmt.Errorf("prepare bpf filesystem for %s: %w", dir, err)
	}
	return nil
}

func ensureBPFFS(dir string) error {
	if !filepath.IsAbs(dir) {
		return errors.New("the path must be absolute")
	}
	on, err := onBPFFS(dir)
	if err != nil {
		return err
	}
	if !on {
		if err := mountBPFFS(mountPoint(dir)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	return nil
}

// mountPoint returns where to mount a bpf filesystem that shall contain dir.
func mountPoint(dir string) string {
	if dir == bpffsRoot || strings.HasPrefix(dir, bpffsRoot+"/") {
		return bpffsRoot
	}
	return dir
}

// onBPFFS reports whether path, or its nearest existing ancestor if it does not
// exist yet, is on a bpf filesystem.
func onBPFFS(path string) (bool, error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(path, &st)
		if err == nil {
			return uint32(st.Type) == unix.BPF_FS_MAGIC, nil
		}
		if !errors.Is(err, unix.ENOENT) || path == "/" {
			return false, &fs.PathError{Op: "statfs", Path: path, Err: err}
		}
		path = filepath.Dir(path)
	}
}

// mountBPFFS mounts a bpf filesystem on at, never over existing files.
func mountBPFFS(at string) error {
	if err := os.MkdirAll(at, dirMode); err != nil {
		return fmt.Errorf("create mount point: %w", err)
	}
	entries, err := os.ReadDir(at)
	if err != nil {
		return fmt.Errorf("read mount point: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not a bpf filesystem and holds other files (%s): will not mount over them",
			at, entries[0].Name())
	}
	if err := unix.Mount("bpf", at, "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpf filesystem on %s: %w", at, err)
	}
	return nil
}
