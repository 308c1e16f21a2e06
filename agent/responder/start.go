package responder

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// Start starts this program with args as a responder for dir. It is in a session
// of its own, and does not write to where this process does: it outlives both.
func Start(dir string, args ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	out, err := os.Create(logPath(dir))
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "ebb"
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %v: %w", args, err)
	}
	go func() { _ = cmd.Wait() }() // its end is seen on the control socket
	return nil
}
