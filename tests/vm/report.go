package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// result is what came of one kernel.
type result struct {
	kernel   string // as asked for
	release  string // as the guest says; empty: it did not boot
	hardware string // "with KVM" or "emulated"
	dir      string // logs
	took     time.Duration
	cases    []testCase
	seconds  map[string]time.Duration // by level, with all it takes to start
	// problems are what is wrong beside failed tests.
	problems []string
}

func (r *result) ok() bool { return len(r.problems) == 0 && !anyFailed(r.cases) }

// judge finds what is wrong beside failed tests. A partial run, of some levels or
// tests, need not meet every expected skip nor fill every level.
func (r *result) judge(levels []string, expected []skip, partial bool) {
	unexpected, missing := account(r.kernel, expected, r.cases)
	for _, c := range unexpected {
		r.problems = append(r.problems, fmt.Sprintf("unexpected skip: %s: %s", c.name, c.reason))
	}
	if len(r.cases) == 0 {
		r.problems = append(r.problems, "nothing ran")
	}
	if partial {
		return
	}
	for _, s := range missing {
		r.problems = append(r.problems, fmt.Sprintf("expected skip did not come: %s", s))
	}
	for _, l := range levels {
		if r.count(l, passed) == 0 {
			r.problems = append(r.problems, fmt.Sprintf("level %s: nothing passed", l))
		}
	}
}

func (r *result) count(level string, o outcome) int {
	n := 0
	for _, c := range r.cases {
		if c.level == level && c.outcome == o {
			n++
		}
	}
	return n
}

// write prints a table of levels, then each skip and each failure.
func (r *result) write(w io.Writer, levels []string) error {
	fmt.Fprintf(w, "\nkernel %s (%s, %s): %s\n", r.kernel, r.release, r.hardware, r.took.Round(time.Second))
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "LEVEL\tPASSED\tFAILED\tSKIPPED\tTIME")
	for _, l := range levels {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%s\n", l, r.count(l, passed), r.count(l, failed), r.count(l, skipped),
			r.seconds[l].Round(time.Second))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, c := range r.cases {
		switch c.outcome {
		case skipped:
			fmt.Fprintf(w, "skipped %s: %s\n", c.name, c.reason)
		case failed:
			fmt.Fprintf(w, "FAILED %s: %s\n", c.name, indent(tail(c.reason, tailLines)))
		}
	}
	for _, p := range r.problems {
		fmt.Fprintf(w, "PROBLEM %s\n", p)
	}
	if !r.ok() {
		fmt.Fprintf(w, "logs of the guest are in %s\n", r.dir)
	}
	return nil
}

// indent moves all lines of text but the first.
func indent(text string) string { return strings.ReplaceAll(text, "\n", "\n    ") }

// levelNames returns the levels of lines in order, each once.
func levelNames(lines []line) []string {
	var names []string
	for _, l := range lines {
		if !slices.Contains(names, l.level) {
			names = append(names, l.level)
		}
	}
	return names
}
