package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// tailLines is how much of a command's output a failure repeats.
const tailLines = 40

// collect reads what the guest left in dir about j.
func collect(dir string, j job) ([]testCase, error) {
	output, err := readAll(dir, j.name+".log", j.name+".err")
	if err != nil {
		return nil, err
	}
	code, took, err := readExit(filepath.Join(dir, j.name+".exit"))
	if errors.Is(err, fs.ErrNotExist) {
		code, err = -1, nil // the guest ended before the job did
	}
	if err != nil {
		return nil, err
	}
	if j.pkg == "" {
		return []testCase{commandCase(j, code, took, output)}, nil
	}
	events, err := convert(filepath.Join(dir, j.name+".log"))
	if err != nil {
		return nil, err
	}
	cases, err := readEvents(bytes.NewReader(events), j.level, j.pkg)
	if err != nil {
		return nil, err
	}
	if code != 0 && !anyFailed(cases) {
		cases = append(cases, commandCase(j, code, took, output))
	}
	return cases, nil
}

// commandCase judges a whole process by its exit code.
func commandCase(j job, code int, took time.Duration, output string) testCase {
	c := testCase{level: j.level, name: j.command, outcome: passed, took: took}
	if j.pkg != "" {
		c.name = j.pkg
	}
	switch code {
	case 0:
		return c
	case -1:
		c.reason = "the guest ended before it did"
	case 124, 137:
		c.reason = "did not end in time"
	default:
		c.reason = fmt.Sprintf("exit code %d", code)
	}
	c.outcome = failed
	c.reason += "\n" + tail(output, tailLines)
	return c
}

func anyFailed(cases []testCase) bool {
	for _, c := range cases {
		if c.outcome == failed {
			return true
		}
	}
	return false
}

// convert turns the output of a test binary into events.
func convert(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := exec.Command("go", "tool", "test2json")
	cmd.Stdin, cmd.Stderr = f, os.Stderr
	return cmd.Output()
}

// readExit reads the exit code of a job and how long it took.
func readExit(path string) (code int, took time.Duration, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	var seconds int
	if _, err := fmt.Sscan(string(b), &code, &seconds); err != nil {
		return 0, 0, fmt.Errorf("read %s: %w", path, err)
	}
	return code, time.Duration(seconds) * time.Second, nil
}

// readAll joins files; those that are not there count as empty.
func readAll(dir string, names ...string) (string, error) {
	var all strings.Builder
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(dir, n))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		all.Write(b)
	}
	return all.String(), nil
}

// tail returns the last lines of text.
func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
