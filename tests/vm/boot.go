package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// killAfter is how long a machine may take to go once it has been told to.
const killAfter = 10 * time.Second

// kernel is a kernel in the cache.
type kernel struct {
	name, image string
}

// fetch fills the cache and returns the kernels.
func fetch(ctx context.Context, root string, names []string) ([]kernel, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(root, "tests/vm/fetch.sh"), names...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("fetch kernels: %w", err)
	}
	var kernels []kernel
	for text := range strings.Lines(string(out)) {
		f := strings.Fields(text)
		if len(f) != 2 {
			return nil, fmt.Errorf("fetch kernels: unexpected line %q", text)
		}
		kernels = append(kernels, kernel{name: f[0], image: f[1]})
	}
	return kernels, nil
}

// machine runs jobs in a virtual machine with one kernel.
type machine struct {
	root, dir string // dir: what guest and host exchange
	binaries  string
	slow      int
	bound     time.Duration // of the whole boot
}

// run boots k and carries out plan. What came of it is in m.dir, whatever the error.
func (m machine) run(ctx context.Context, k kernel, plan []byte, progress io.Writer) error {
	if err := os.RemoveAll(m.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return err
	}
	for name, content := range map[string][]byte{"plan": plan, "slow": fmt.Append(nil, m.slow)} {
		if err := os.WriteFile(filepath.Join(m.dir, name), content, 0o644); err != nil {
			return err
		}
	}
	console, err := os.Create(filepath.Join(m.dir, "console.log"))
	if err != nil {
		return err
	}
	defer console.Close()
	ctx, cancel := context.WithTimeout(ctx, m.bound)
	defer cancel()
	script := filepath.Join(m.root, "tests/vm")
	cmd := exec.CommandContext(ctx, filepath.Join(script, "boot.sh"), k.image, m.dir,
		"bash "+filepath.Join(script, "guest.sh")+" "+m.dir+" "+m.binaries)
	cmd.Stdout, cmd.Stderr = progress, console
	// QEMU is a grandchild: the whole group has to go.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killAfter
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("virtual machine: %w", err)
	}
	return nil
}

// note reads a one-line file that boot.sh or the guest wrote; empty if it is not there.
func (m machine) note(name string) string {
	b, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}

// keepConsole moves the console's log aside, before another run, and returns where it is.
func (m machine) keepConsole() string {
	path := m.dir + ".console.log"
	if err := os.Rename(filepath.Join(m.dir, "console.log"), path); err != nil {
		return err.Error()
	}
	return path
}

// progressWriter prefixes each line with the time since it was made.
type progressWriter struct {
	to    io.Writer
	name  string
	began time.Time
}

// Write expects whole lines, as the guest's echo sends them.
func (p *progressWriter) Write(b []byte) (int, error) {
	for text := range strings.Lines(string(b)) {
		if t := strings.TrimSpace(text); t != "" {
			fmt.Fprintf(p.to, "%6.0fs  %s  %s\n", time.Since(p.began).Seconds(), p.name, t)
		}
	}
	return len(b), nil
}
