package lab

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// BPFFS is where a node has a BPF filesystem of its own.
const BPFFS = "/sys/fs/bpf"

// unshareMounts gives the calling thread private mounts: a /sys that shows its
// network namespace, with an empty BPF filesystem at BPFFS. The mounts go when
// the last process and the returned file are gone; the host never sees them.
func unshareMounts() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, fmt.Errorf("unshare mounts: %w", err)
	}
	if err := notInChroot(); err != nil {
		return nil, err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return nil, fmt.Errorf("detach mounts from the host: %w", err)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("sysfs", "/sys", "sysfs", flags, ""); err != nil {
		return nil, fmt.Errorf("mount /sys: %w", err)
	}
	if err := unix.Mount("bpf", BPFFS, "bpf", flags, "mode=0700"); err != nil {
		if errors.Is(err, unix.ENODEV) {
			return nil, fmt.Errorf("mount %s: the kernel has no BPF filesystem (CONFIG_BPF_SYSCALL): %w", BPFFS, err)
		}
		return nil, fmt.Errorf("mount %s: %w", BPFFS, err)
	}
	return os.Open("/proc/thread-self/ns/mnt")
}

// errChroot: processes enter a node by its mount namespace, which leads out of a
// chroot, to other files and to the machine's own control groups.
var errChroot = errors.New("this process is in a chroot, which nodes of a lab cannot be in: " +
	"make the directory the root of a mount namespace (unshare --mount, pivot_root), as containers do")

// notInChroot looks whether the calling thread, which has a mount namespace of its own,
// has the root of that.
func notInChroot() error {
	before, err := rootID()
	if err != nil {
		return err
	}
	own, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return err
	}
	defer own.Close()
	if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter mounts: %w", err)
	}
	after, err := rootID()
	if err == nil && after != before {
		return errChroot
	}
	return err
}

// place is a directory as no other path leads to.
type place struct{ mount, inode uint64 }

func rootID() (place, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, "/", 0, unix.STATX_INO|unix.STATX_MNT_ID, &st); err != nil {
		return place{}, fmt.Errorf("look at /: %w", err)
	}
	return place{st.Mnt_id, st.Ino}, nil
}
