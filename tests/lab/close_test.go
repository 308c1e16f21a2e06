package lab

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// roleVar makes the test binary play one of the roles below instead of testing.
const roleVar = "LAB_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "":
		os.Exit(m.Run())
	case "idle":
		fmt.Println("ready")
		select {}
	case "owner":
		own()
	}
}

// own builds a lab with a process in it, prints the pid, and waits to be killed.
func own() {
	l, err := New(context.Background(), Config{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	p, err := l.Client.Start(role("idle"))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(p.PID())
	select {}
}

func role(name string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVar+"="+name)
	return cmd
}

// startIdle starts a process in ns and waits until it runs.
func startIdle(t *testing.T, ns *NS) *Process {
	t.Helper()
	cmd := role("idle")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout = w
	p, err := ns.Start(cmd)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(r).ReadString('\n'); line != "ready\n" {
		t.Fatalf("process said %q, %v", line, err)
	}
	return p
}

// traces are what a lab could leave on the host.
type traces struct {
	Links      []string
	Mounts     []string // lines of mountinfo
	Namespaces []string // of all threads and open files
}

func readTraces(t *testing.T) traces {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var tr traces
	for _, l := range links {
		tr.Links = append(tr.Links, l.Attrs().Name)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	tr.Mounts = strings.Split(string(mounts), "\n")
	seen := map[string]bool{}
	for _, pattern := range []string{"/proc/self/task/*/ns/net", "/proc/self/task/*/ns/mnt", "/proc/self/fd/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			target, err := os.Readlink(p)
			if err == nil && (strings.HasPrefix(target, "net:") || strings.HasPrefix(target, "mnt:")) && !seen[target] {
				seen[target] = true
				tr.Namespaces = append(tr.Namespaces, target)
			}
		}
	}
	return tr
}

// beyond is what of tr was not there before. What was there and is not is none of
// the lab's: other tests of the machine, and threads of earlier ones, come and go.
func (tr traces) beyond(before traces) traces {
	fresh := func(now, then []string) []string {
		return slices.DeleteFunc(slices.Clone(now), func(s string) bool { return slices.Contains(then, s) })
	}
	return traces{
		Links:      fresh(tr.Links, before.Links),
		Mounts:     fresh(tr.Mounts, before.Mounts),
		Namespaces: fresh(tr.Namespaces, before.Namespaces),
	}
}

func (tr traces) none() bool { return len(tr.Links)+len(tr.Mounts)+len(tr.Namespaces) == 0 }

// eventually waits until check holds. Threads and processes end a little after
// they have been told to.
func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !check() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timeout: %s", what)
		}
	}
}

func gone(pid int) bool { return unix.Kill(pid, 0) == unix.ESRCH }

func TestCloseLeavesNothingBehind(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: creates network namespaces")
	}
	before := readTraces(t)
	l := newTestLab(t, Config{})
	pod := addTestPod(t, l.Nodes[1], "pod")
	var pids []int
	for _, ns := range []*NS{l.Client, l.Nodes[0].NS, pod.NS} {
		pids = append(pids, startIdle(t, ns).PID())
	}
	listener, err := pod.Listen(t.Context(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if during := readTraces(t); len(during.Namespaces) <= len(before.Namespaces) {
		t.Errorf("a lab holds no namespaces: %q", during.Namespaces)
	}
	for range 2 { // the second must do nothing
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, pid := range pids {
		if !gone(pid) {
			t.Errorf("process %d is still there", pid)
		}
	}
	var left traces
	t.Cleanup(func() {
		if !left.none() {
			t.Logf("left behind: %+v", left)
		}
	})
	eventually(t, "the lab leaves something", func() bool {
		left = readTraces(t).beyond(before)
		return left.none()
	})
	if _, err := l.Nodes[0].AddPod("late"); err == nil {
		t.Error("a pod was added to a closed lab")
	}
	if _, err := l.Client.Start(role("idle")); err == nil {
		t.Error("a process was started in a closed lab")
	}
}

func TestKilledOwnerTakesItsProcessesAlong(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: creates network namespaces")
	}
	owner := role("owner")
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("owner said %q", line)
	}
	if gone(pid) {
		t.Fatalf("process %d ended before its owner", pid)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait() // killed, and says so
	eventually(t, "the process outlives its owner", func() bool { return gone(pid) || zombie(pid) })
}

// zombie reports whether pid has ended, but nobody has collected it: its new
// parent may be slow to, and is none of ours.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func TestRemovingAPodEndsItsProcessesAndItsLink(t *testing.T) {
	l := newTestLab(t, Config{Nodes: []string{"n"}})
	n := l.Nodes[0]
	first := addTestPod(t, n, "first")
	p := startIdle(t, first.NS)
	other := startIdle(t, n.NS)
	if err := first.Remove(); err != nil {
		t.Fatal(err)
	}
	if !gone(p.PID()) {
		t.Error("the process of the pod is still there")
	}
	if gone(other.PID()) {
		t.Error("a process outside the pod was killed")
	}
	err := n.Do(func() error {
		_, err := netlink.LinkByName(first.HostDev)
		return err
	})
	if err == nil {
		t.Errorf("%s is still there", first.HostDev)
	}
	second := addTestPod(t, n, "second")
	if second.Addr4 == first.Addr4 {
		t.Errorf("%s was given to another pod", first.Addr4)
	}
	if err := exchange(t.Context(), n.NS, second.NS, "tcp", second.Addr4); err != nil {
		t.Errorf("the next pod is not reachable: %v", err)
	}
	if err := first.Remove(); err != nil {
		t.Errorf("remove twice: %v", err)
	}
}
