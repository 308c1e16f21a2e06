package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// outcome is how a test ended.
type outcome string

const (
	passed  outcome = "passed"
	failed  outcome = "failed"
	skipped outcome = "skipped"
)

// testCase is a test, subtest or command that ran in a guest.
type testCase struct {
	level   string
	name    string // package and test, as "loader.TestProbe/sub"
	outcome outcome
	took    time.Duration
	reason  string // what it said, unless it passed
}

// event is a line of go tool test2json.
type event struct {
	Action, Test, Output string
	Elapsed              float64
}

// readEvents returns the tests of a package, in the order in which they ended.
// One that began and did not end has failed.
func readEvents(r io.Reader, level, pkg string) ([]testCase, error) {
	var cases []testCase
	said := make(map[string]*strings.Builder)
	var open []string
	decoder := json.NewDecoder(r)
	for {
		var e event
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("read events of %s: %w", pkg, err)
		}
		if e.Test == "" {
			continue
		}
		switch e.Action {
		case "run":
			open = append(open, e.Test)
			said[e.Test] = new(strings.Builder)
		case "output":
			if b := said[e.Test]; b != nil {
				b.WriteString(e.Output)
			}
		case "pass", "fail", "skip":
			open = slices.DeleteFunc(open, func(t string) bool { return t == e.Test })
			cases = append(cases, ended(e, level, pkg, said[e.Test]))
		}
	}
	for _, t := range open {
		cases = append(cases, testCase{level: level, name: pkg + "." + t, outcome: failed, reason: "did not end\n" + reason(said[t])})
	}
	return cases, nil
}

func ended(e event, level, pkg string, said *strings.Builder) testCase {
	c := testCase{
		level: level, name: pkg + "." + e.Test,
		took: time.Duration(e.Elapsed * float64(time.Second)),
	}
	c.outcome = map[string]outcome{"pass": passed, "fail": failed, "skip": skipped}[e.Action]
	if c.outcome != passed {
		c.reason = reason(said)
	}
	return c
}

// reason returns what a test said, without the lines of the test framework.
func reason(said *strings.Builder) string {
	if said == nil {
		return ""
	}
	var lines []string
	for l := range strings.Lines(said.String()) {
		t := strings.TrimSpace(l)
		if t != "" && !strings.HasPrefix(t, "=== ") && !strings.HasPrefix(t, "--- ") {
			lines = append(lines, strings.TrimRight(l, "\n"))
		}
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}
