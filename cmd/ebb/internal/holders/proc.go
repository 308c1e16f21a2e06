package holders

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Processes returns the processes of the network namespace of this process, itself
// left out. Those of other PID namespaces are not seen.
func Processes() ([]Process, error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	var all []Process
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// One that ends meanwhile, or is a zombie, has no namespace.
		if ns, err := os.Readlink(filepath.Join("/proc", d.Name(), "ns/net")); err != nil || ns != own {
			continue
		}
		if name := nameOf(d.Name()); name != "" {
			all = append(all, Process{PID: pid, Name: name})
		}
	}
	return all, nil
}

// nameOf is what a process was started as, else what the kernel calls it.
func nameOf(pid string) string {
	cmdline, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
	program, _, _ := strings.Cut(string(cmdline), "\x00")
	if program = filepath.Base(program); program != "." && program != "exe" {
		return program
	}
	comm, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
	return strings.TrimSpace(string(comm))
}

// Listeners returns the listening sockets of this network namespace, sorted by port, with
// those of all that hold them.
func Listeners(all []Process) ([]Listener, error) {
	var listeners []Listener
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) { // without IPv6
			continue
		}
		if err != nil {
			return nil, err
		}
		some, err := parseListeners(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		listeners = append(listeners, some...)
	}
	own(listeners, all)
	slices.SortStableFunc(listeners, func(a, b Listener) int { return int(a.Addr.Port()) - int(b.Addr.Port()) })
	return listeners, nil
}

// own fills in who has the sockets.
func own(listeners []Listener, all []Process) {
	byInode := map[string][]int{}
	for i, l := range listeners {
		name := fmt.Sprintf("socket:[%d]", l.inode)
		byInode[name] = append(byInode[name], i)
	}
	for _, p := range all {
		dir := fmt.Sprintf("/proc/%d/fd", p.PID)
		fds, err := os.ReadDir(dir)
		if err != nil { // it ended, or is not ours to look into
			continue
		}
		for _, fd := range fds {
			to, _ := os.Readlink(filepath.Join(dir, fd.Name()))
			for _, i := range byInode[to] {
				listeners[i].Owner = p
			}
		}
	}
}
