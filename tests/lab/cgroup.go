package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CgroupRoot is where a node has a cgroup filesystem of its own: its root is the
// node's control group. Programs attached there see the sockets of the node and
// its pods, and of nobody else.
const CgroupRoot = "/sys/fs/cgroup"

// cgroupPrefix begins the names of the labs' control groups; the pid of the
// lab's process follows.
const cgroupPrefix = "ebb-lab-"

// emptyBound is how long threads that are being thrown away are waited for.
const emptyBound = 5 * time.Second

// cgroup is the control group of a node. A socket belongs to the control group
// of the thread that makes it, so threads that enter the node or a pod join.
// For that it is a threaded one, below the group of the whole process.
type cgroup struct {
	parent  *os.File // directory
	name    string
	threads *os.File // its file cgroup.threads
}

// newCgroup makes a control group and moves the calling thread, which must be
// locked, expendable, and have mounts of its own, into it.
func newCgroup(node string) (*cgroup, error) {
	if err := mountCgroups(); err != nil {
		return nil, err
	}
	cg, err := makeCgroup(fmt.Sprintf("%s%d-%s-%d", cgroupPrefix, os.Getpid(), node, time.Now().UnixNano()))
	if err != nil {
		return nil, err
	}
	// What is mounted in a cgroup namespace begins at the group it was made in.
	err = cg.join()
	if err == nil {
		err = unix.Unshare(unix.CLONE_NEWCGROUP)
	}
	if err == nil {
		err = unix.Unmount(CgroupRoot, unix.MNT_DETACH)
	}
	if err == nil {
		err = mountCgroups()
	}
	if err != nil {
		return cg, fmt.Errorf("enter control group: %w", err)
	}
	return cg, nil
}

func mountCgroups() error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("cgroup2", CgroupRoot, "cgroup2", flags, ""); err != nil {
		return fmt.Errorf("mount %s: %w", CgroupRoot, err)
	}
	return nil
}

// makeCgroup makes a threaded group below that of the process, which holds all
// threads that are in none of a lab's.
func makeCgroup(name string) (*cgroup, error) {
	own, err := ownCgroup()
	if err != nil {
		return nil, err
	}
	parent, err := os.Open(filepath.Join(CgroupRoot, own))
	if err != nil {
		return nil, err
	}
	removeStale(parent)
	dir := filepath.Join(parent.Name(), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, errors.Join(err, parent.Close())
	}
	cg := &cgroup{parent: parent, name: name}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.type"), []byte("threaded"), 0); err != nil {
		return nil, errors.Join(fmt.Errorf("make control group threaded: %w", err), cg.close())
	}
	if cg.threads, err = os.OpenFile(filepath.Join(dir, "cgroup.threads"), os.O_WRONLY, 0); err != nil {
		return nil, errors.Join(err, cg.close())
	}
	return cg, nil
}

// ownCgroup returns the path of the process's group in the unified hierarchy.
func ownCgroup() (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok {
			continue
		}
		if path == "/.." || strings.HasPrefix(path, "/../") {
			return "", fmt.Errorf("the control group of this process, %s, is outside its cgroup namespace: "+
				"start it in one below the root of the namespace", path)
		}
		return path, nil
	}
	return "", errors.New("the kernel has no unified control groups (CONFIG_CGROUPS)")
}

// removeStale removes the groups of processes that were killed.
func removeStale(parent *os.File) {
	stale, err := filepath.Glob(filepath.Join(parent.Name(), cgroupPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range stale {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), cgroupPrefix), "-")
		n, err := strconv.Atoi(pid)
		if err == nil && errors.Is(unix.Kill(n, 0), unix.ESRCH) {
			_ = unix.Rmdir(dir) // another lab may be faster
		}
	}
}

// join moves the calling thread into the group.
func (cg *cgroup) join() error {
	if _, err := cg.threads.WriteString("0"); err != nil {
		return fmt.Errorf("join control group: %w", err)
	}
	return nil
}

// close removes the group once the last thread has left it.
func (cg *cgroup) close() error {
	var errs []error
	if cg.threads != nil {
		errs = append(errs, cg.threads.Close())
	}
	if err := cg.remove(); err != nil {
		errs = append(errs, fmt.Errorf("remove control group %s: %w", cg.name, err))
	}
	return errors.Join(append(errs, cg.parent.Close())...)
}

func (cg *cgroup) remove() error {
	deadline := time.After(emptyBound)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Unlinkat(int(cg.parent.Fd()), cg.name, unix.AT_REMOVEDIR)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-deadline:
			return err
		case <-tick.C:
		}
	}
}
