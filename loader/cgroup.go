package loader

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Cgroup is a control group of the unified hierarchy (cgroup v2), held open. The
// owner closes it.
type Cgroup struct {
	// Path is where it was found; empty if it is mounted nowhere.
	Path string
	dir  *os.File
	id   uint64 // the kernel's number of the group
}

// OpenCgroup opens the group at path, or where path is empty the root that this
// machine uses: what is mounted where the distribution mounts it, else any mount of
// the whole hierarchy, else a mount of its own that nobody else sees and that ends
// with Close, else part of the hierarchy.
func OpenCgroup(path string) (*Cgroup, error) {
	c, err := openCgroup(path)
	if err != nil {
		return nil, fmt.Errorf("open cgroup root: %w", err)
	}
	return c, nil
}

func openCgroup(path string) (*Cgroup, error) {
	if path != "" {
		return openCgroupAt(path)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find where cgroup v2 is mounted (is /proc?): %w", err)
	}
	whole, parts := cgroupMounts(mounts)
	if c := firstCgroup(whole); c != nil {
		return c, nil
	}
	c, err := mountCgroup()
	if err == nil {
		return c, nil
	}
	if c := firstCgroup(parts); c != nil {
		return c, nil
	}
	return nil, err
}

// firstCgroup opens the first of paths that can be; nil if there is none.
// Something else may be mounted above one.
func firstCgroup(paths []string) *Cgroup {
	for _, at := range paths {
		if c, err := openCgroupAt(at); err == nil {
			return c
		}
	}
	return nil
}

// usualCgroups are where distributions mount cgroup v2, alone or beside v1.
func usualCgroups() []string { return []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} }

// cgroupMounts returns the mount points of cgroup v2 in a mountinfo file: the usual
// ones and those that begin at the root of the hierarchy in that order, then those
// of parts of it. What programs mount for themselves, as in a temporary directory, may
// show more than what this machine, or this container, considers its root.
func cgroupMounts(mountinfo []byte) (whole, parts []string) {
	var usual, roots []string
	for line := range bytes.Lines(mountinfo) {
		const root, at = 3, 4
		fields := strings.Fields(string(line))
		_, kind, _ := strings.Cut(string(line), " - ")
		if len(fields) <= at || !strings.HasPrefix(kind, "cgroup2 ") {
			continue
		}
		path := unescape(fields[at])
		switch {
		case slices.Contains(usualCgroups(), path):
			usual = append(usual, path)
		case fields[root] == "/":
			roots = append(roots, path)
		default:
			parts = append(parts, path)
		}
	}
	slices.SortFunc(usual, func(a, b string) int { // as in usualCgroups
		return cmp.Compare(slices.Index(usualCgroups(), a), slices.Index(usualCgroups(), b))
	})
	return append(slices.Compact(usual), roots...), parts
}

// unescape undoes what the kernel does to a path in mountinfo.
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

func openCgroupAt(path string) (*Cgroup, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return newCgroup(dir, path)
}

// mountCgroup makes a mount that has no place in any tree.
func mountCgroup() (*Cgroup, error) {
	ctx, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("no cgroup v2 is mounted, and the kernel has none: %w", err)
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigCreate(ctx); err != nil {
		return nil, fmt.Errorf("mount cgroup v2: %w", err)
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("mount cgroup v2: %w", err)
	}
	mount := os.NewFile(uintptr(fd), "cgroup2")
	defer mount.Close() // the directory keeps it
	dir, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("mount cgroup v2: %w", err)
	}
	return newCgroup(dir, "")
}

// newCgroup takes over dir, which was opened at path.
func newCgroup(dir *os.File, path string) (*Cgroup, error) {
	var fsys unix.Statfs_t
	var st unix.Stat_t
	err := errors.Join(unix.Fstatfs(int(dir.Fd()), &fsys), unix.Fstat(int(dir.Fd()), &st))
	if err == nil && uint32(fsys.Type) != unix.CGROUP2_SUPER_MAGIC {
		err = errors.New("not a cgroup v2 filesystem")
	}
	if err != nil {
		return nil, errors.Join(&fs.PathError{Op: "open", Path: path, Err: err}, dir.Close())
	}
	return &Cgroup{Path: path, dir: dir, id: st.Ino}, nil
}

// IsRoot reports whether c is the root of the whole hierarchy: then no process of
// the machine is outside. The kernel gives only other groups a type.
func (c *Cgroup) IsRoot() bool {
	_, err := os.Stat(filepath.Join(c.open(), "cgroup.type"))
	return errors.Is(err, fs.ErrNotExist)
}

// Groups returns the numbers of c and of all groups below it, as sockets have them;
// nil if that is all there are.
func (c *Cgroup) Groups() (map[uint64]bool, error) {
	if c.IsRoot() {
		return nil, nil
	}
	ids := make(map[uint64]bool)
	err := filepath.WalkDir(c.open()+"/.", func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil || !d.IsDir() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err == nil {
			ids[st.Ino] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list control groups: %w", err)
	}
	return ids, nil
}

// open is a path to c that is good wherever it is mounted, as long as it is open.
func (c *Cgroup) open() string { return fmt.Sprintf("/proc/self/fd/%d", c.dir.Fd()) }

// Close releases c.
func (c *Cgroup) Close() error { return c.dir.Close() }
