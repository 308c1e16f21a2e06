package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const module = "github.com/ebb-lb/ebb"

// job is one process in the guest: a test binary or a command.
type job struct {
	level, name string // the name is unique
	pkg         string // without the module; empty: a command
	dir         string
	command     string
}

// builder makes jobs. Binaries go to dir, which the guest sees too.
type builder struct {
	root, dir string
	run       string // only tests that match; empty: all
	built     map[string]string
}

// jobs builds what lines name and returns it in their order.
func (b *builder) jobs(lines []line) ([]job, error) {
	if err := b.goCommand("build", "-o", filepath.Join(b.dir, "ebb"), "./cmd/ebb"); err != nil {
		return nil, err
	}
	var jobs []job
	for i, l := range lines {
		if l.command != "" {
			jobs = append(jobs, job{level: l.level, name: fmt.Sprintf("%s-%d", l.level, i), dir: b.root, command: l.command})
			continue
		}
		packages, err := b.packages(l.packages)
		if err != nil {
			return nil, fmt.Errorf("level %s: %w", l.level, err)
		}
		for _, p := range packages {
			j, err := b.test(l, p)
			if err != nil {
				return nil, err
			}
			jobs = append(jobs, j)
		}
	}
	return jobs, nil
}

// packages returns the packages with tests that match patterns.
func (b *builder) packages(patterns []string) ([]string, error) {
	var existing []string
	for _, p := range patterns {
		if _, err := os.Stat(filepath.Join(b.root, strings.TrimSuffix(p, "/..."))); err == nil {
			existing = append(existing, p)
		}
	}
	if len(existing) == 0 {
		return nil, nil
	}
	args := append([]string{"list", "-f", `{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}`}, existing...)
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Stderr = b.root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list packages %v: %w", existing, err)
	}
	return strings.Fields(string(out)), nil
}

// test builds the test binary of a package and returns the job that runs it.
func (b *builder) test(l line, importPath string) (job, error) {
	pkg := strings.TrimPrefix(importPath, module+"/")
	binary := strings.ReplaceAll(pkg, "/", "_") + ".test"
	if b.built[pkg] == "" {
		if err := b.goCommand("test", "-c", "-o", filepath.Join(b.dir, binary), importPath); err != nil {
			return job{}, err
		}
		b.built[pkg] = binary
	}
	flags := l.flags
	if b.run != "" {
		flags = append(flags[:len(flags):len(flags)], "-test.run="+shellQuote(b.run))
	}
	return job{
		level: l.level, name: l.level + "-" + strings.ReplaceAll(pkg, "/", "_"), pkg: pkg,
		dir:     filepath.Join(b.root, pkg),
		command: strings.Join(append([]string{binary, "-test.v=test2json", "-test.count=1"}, flags...), " "),
	}, nil
}

// shellQuote makes text one word of a shell command.
func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func (b *builder) goCommand(args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Dir = b.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// plan is what guest.sh reads.
func plan(jobs []job, bound time.Duration) []byte {
	var buf bytes.Buffer
	for _, j := range jobs {
		fmt.Fprintf(&buf, "%s\t%s\t%d\t%s\n", j.name, j.dir, int(bound.Seconds()), j.command)
	}
	return buf.Bytes()
}
