package main

import (
	"fmt"
	"io"
	"strings"
)

// skip is an expected skip: a test that cannot run on a kernel, because of a
// feature the kernel lacks.
type skip struct {
	kernel, test, feature string
}

func (s skip) String() string {
	return fmt.Sprintf("%s %s (%s)", s.kernel, s.test, s.feature)
}

// covers reports whether c, run on kernel, is this skip or a part of it.
func (s skip) covers(kernel string, c testCase) bool {
	same := c.name == s.test || strings.HasPrefix(c.name, s.test+"/")
	return s.kernel == kernel && same && strings.Contains(c.reason, s.feature)
}

// parseSkips reads the file skips.
func parseSkips(r io.Reader) ([]skip, error) {
	var skips []skip
	err := eachLine(r, func(text string) error {
		f := strings.Fields(text)
		if len(f) < 3 {
			return fmt.Errorf("%q: want a kernel, a test and the missing feature", text)
		}
		skips = append(skips, skip{kernel: f[0], test: f[1], feature: strings.Join(f[2:], " ")})
		return nil
	})
	return skips, err
}

// account compares what was skipped on kernel with what is expected. A skip
// nobody expects is as wrong as an expected one that did not come.
func account(kernel string, expected []skip, cases []testCase) (unexpected []testCase, missing []skip) {
	used := make(map[skip]bool)
	for _, c := range cases {
		if c.outcome != skipped {
			continue
		}
		known := false
		for _, s := range expected {
			if s.covers(kernel, c) {
				used[s], known = true, true
			}
		}
		if !known {
			unexpected = append(unexpected, c)
		}
	}
	for _, s := range expected {
		if s.kernel == kernel && !used[s] {
			missing = append(missing, s)
		}
	}
	return unexpected, missing
}
