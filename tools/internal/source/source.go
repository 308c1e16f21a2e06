// Package source knows the source tree that is shipped: which version and commit
// it is, and how programs are built from it so that two builds are one.
package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Module is the path of ebb's module.
const Module = "github.com/ebb-lb/ebb"

// URL is where the source is published.
const URL = "https://" + Module

// License is ebb's, as SPDX names it: the agent's, and that of the programs in bpf.
const License = "Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)"

// Arches are those that releases are for. The BPF objects are little endian, and
// so are both.
func Arches() []string { return []string{"amd64", "arm64"} }

// Tree is a source tree with a version.
type Tree struct {
	Dir     string
	Version string // "v1.2.3"
	Commit  string // ends in "-dirty" if there are other changes; "unknown" outside of git
	// Time is that of the commit: everything that is shipped bears it.
	Time time.Time
}

// ChartDir is where the chart is in a tree. Its appVersion is the version of the
// tree unless somebody says another.
const ChartDir = "deploy/helm/ebb"

var appVersion = regexp.MustCompile(`(?m)^appVersion: "?([^"\s]+)"?$`)

// Open returns the tree at dir as version, or as the chart's if that is empty. The
// environment variable SOURCE_DATE_EPOCH overrides the time.
func Open(ctx context.Context, dir, version string) (Tree, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Tree{}, err
	}
	if version == "" {
		if version, err = chartVersion(abs); err != nil {
			return Tree{}, err
		}
	}
	t := Tree{Dir: abs, Version: version, Commit: "unknown", Time: time.Unix(0, 0).UTC()}
	if commit, err := t.git(ctx, "rev-parse", "HEAD"); err == nil {
		if err := t.describe(ctx, commit); err != nil {
			return Tree{}, err
		}
	}
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		if t.Time, err = unixTime(epoch); err != nil {
			return Tree{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
	}
	return t, nil
}

func chartVersion(dir string) (string, error) {
	file := filepath.Join(dir, ChartDir, "Chart.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("version: %w", err)
	}
	found := appVersion.FindSubmatch(text)
	if found == nil {
		return "", fmt.Errorf("version: %s has no appVersion", file)
	}
	return string(found[1]), nil
}

func (t *Tree) describe(ctx context.Context, commit string) error {
	changes, err := t.git(ctx, "status", "--porcelain")
	if err != nil {
		return err
	}
	t.Commit = commit
	if changes != "" {
		t.Commit += "-dirty"
	}
	at, err := t.git(ctx, "log", "-1", "--format=%ct")
	if err != nil {
		return err
	}
	t.Time, err = unixTime(at)
	return err
}

func unixTime(text string) (time.Time, error) {
	seconds, err := strconv.ParseInt(text, 10, 64)
	return time.Unix(seconds, 0).UTC(), err
}

func (t Tree) git(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", t.Dir}, args...)...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// Build builds the program ebb for Linux on arch into the file out: static, and
// without a trace of the machine it is built on.
func (t Tree) Build(ctx context.Context, arch, out string) error {
	const set = "-X " + Module + "/agent/version."
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", strings.Join([]string{"-s -w -buildid=", set + "version=" + t.Version, set + "commit=" + t.Commit}, " "),
		"-o", out, "./cmd/ebb")
	cmd.Dir = t.Dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "GOEXPERIMENT=")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build ebb for %s: %w", arch, err)
	}
	return nil
}
