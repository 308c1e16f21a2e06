package main

import (
	"encoding/xml"
	"fmt"
	"os"
)

// The JUnit format, as far as test reporters read it.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Seconds string        `xml:"time,attr"`
		Failure *junitMessage `xml:"failure"`
		Skipped *junitMessage `xml:"skipped"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// junit returns a suite per level, and one more for what is wrong beside
// failed tests, if there is any.
func junit(r *result, levels []string) junitSuites {
	var all junitSuites
	for _, l := range levels {
		s := junitSuite{Name: r.kernel + "/" + l}
		for _, c := range r.cases {
			if c.level == l {
				s.add(junitOf(c))
			}
		}
		all.Suites = append(all.Suites, s)
	}
	s := junitSuite{Name: r.kernel + "/matrix"}
	for i, p := range r.problems {
		s.add(junitCase{Class: "matrix", Name: fmt.Sprintf("problem %d", i+1), Seconds: "0", Failure: &junitMessage{Message: p}})
	}
	if len(s.Cases) > 0 {
		all.Suites = append(all.Suites, s)
	}
	return all
}

func (s *junitSuite) add(c junitCase) {
	s.Cases = append(s.Cases, c)
	s.Tests++
	if c.Failure != nil {
		s.Failures++
	}
	if c.Skipped != nil {
		s.Skipped++
	}
}

func junitOf(c testCase) junitCase {
	j := junitCase{Class: c.level, Name: c.name, Seconds: fmt.Sprintf("%.3f", c.took.Seconds())}
	switch c.outcome {
	case failed:
		j.Failure = &junitMessage{Message: string(failed), Text: c.reason}
	case skipped:
		j.Skipped = &junitMessage{Message: c.reason}
	}
	return j
}

func writeJUnit(path string, suites junitSuites) error {
	b, err := xml.MarshalIndent(suites, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append([]byte(xml.Header), b...), 0o644)
}
