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
