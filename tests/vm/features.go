package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// survey is the part of "ebb preflight -o json" that the table of features needs.
type survey struct {
	Kernel   string
	Features []struct {
		Name, Since, Fallback string
		Present               bool
	}
}

func readSurvey(path string) (survey, error) {
	var s survey
	b, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read %s: %w", path, err)
	}
	return s, nil
}

// featureTable is a Markdown table of features and kernels.
func featureTable(surveys []survey) string {
	var buf strings.Builder
	head, rule := "| feature | since |", "|---|---|"
	for _, s := range surveys {
		head, rule = head+" "+s.Kernel+" |", rule+"---|"
	}
	fmt.Fprintf(&buf, "%s without it |\n%s---|\n", head, rule)
	for i, f := range surveys[0].Features {
		fmt.Fprintf(&buf, "| %s | %s |", f.Name, f.Since)
		for _, s := range surveys {
			present := "no"
			if i < len(s.Features) && s.Features[i].Present {
				present = "yes"
			}
			fmt.Fprintf(&buf, " %s |", present)
		}
		fallback := f.Fallback
		if fallback == "" {
			fallback = "ebb does not run"
		}
		fmt.Fprintf(&buf, " %s |\n", fallback)
	}
	return buf.String()
}

// The table stands between these lines of a document.
const (
	tableBegin = "<!-- features: begin, written by make vmtest DOCS=docs/kernel.md -->\n"
	tableEnd   = "<!-- features: end -->\n"
)

// replaceTable puts table between the marks of document.
func replaceTable(document []byte, table string) ([]byte, error) {
	before, rest, ok := bytes.Cut(document, []byte(tableBegin))
	_, after, ok2 := bytes.Cut(rest, []byte(tableEnd))
	if !ok || !ok2 {
		return nil, errors.New("the document has no marks for the table of features")
	}
	return bytes.Join([][]byte{before, []byte(tableBegin), []byte(table), []byte(tableEnd), after}, nil), nil
}
