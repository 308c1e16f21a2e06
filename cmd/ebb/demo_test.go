package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/cmd/ebb/internal/demo"
)

// build builds the binary that the demo starts its processes from.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ebb")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// Real sockets, a rolling update and a killed agent, once for each way a
// packet can go.
func TestDemoLosesNothing(t *testing.T) {
	ebb := build(t)
	for _, xdp := range demo.XDPModes() {
		t.Run(xdp, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, ebb, "demo", "--duration", "9s", "--xdp", xdp, "-o", "json")
			cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
			var progress bytes.Buffer
			cmd.Stderr = &progress
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("demo: %v\n%s%s", err, out, progress.String())
			}
			var r demo.Result
			if err := json.Unmarshal(out, &r); err != nil {
				t.Fatal(err)
			}
			checkResult(t, r, xdp)
		})
	}
}

func checkResult(t *testing.T, r demo.Result, xdp string) {
	t.Helper()
	if len(r.Acts) != 4 || r.Failed != 0 {
		t.Errorf("%d acts and %d failures, want 4 and 0", len(r.Acts), r.Failed)
	}
	for _, a := range r.Acts {
		if a.Requests == 0 || a.Failed != 0 {
			t.Errorf("act %q: %d requests, %d failed", a.Name, a.Requests, a.Failed)
		}
	}
	hook := "xdp"
	if xdp == "off" {
		hook = "tc-ingress"
	}
	if dialled := r.Packets["node-a"]["socket"]; dialled["to-local"] == 0 || dialled["to-remote"] == 0 {
		t.Errorf("sockets of node-a dialled %v, want backends here and elsewhere", dialled)
	}
	local, remote := r.Packets["node-a"][hook]["to-local"], r.Packets["node-a"][hook]["to-remote"]
	if local == 0 || remote == 0 {
		t.Errorf("%s translated %d packets to local and %d to remote backends, want some of both", hook, local, remote)
	}
}

func TestWrongUsageIsRefusedWithExitCode2(t *testing.T) {
	ebb := build(t)
	for _, args := range [][]string{
		{"demo", "--xdp", "fast"}, {"demo", "--duration", "1s"}, {"demo", "-o", "xml"}, {"demo", "extra"}, {"demo", "--slow", "0"},
		{"agent", "--xdp", "fast"}, {"agent", "--nonsense"},
	} {
		out, err := exec.Command(ebb, args...).CombinedOutput()
		exit, ok := err.(*exec.ExitError)
		if !ok || exit.ExitCode() != exitUsage {
			t.Errorf("ebb %v: %v, want exit code %d\n%s", args, err, exitUsage, out)
		}
	}
}
