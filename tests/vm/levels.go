package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

// line is one line of the file levels: packages of tests, or a command.
type line struct {
	level    string
	packages []string
	flags    []string // of the test binaries
	command  string
}

// parseLevels reads the file levels.
func parseLevels(r io.Reader) ([]line, error) {
	var lines []line
	err := eachLine(r, func(text string) error {
		l, err := parseLevel(text)
		lines = append(lines, l)
		return err
	})
	return lines, err
}

func parseLevel(text string) (line, error) {
	fields := strings.Fields(text)
	l := line{level: fields[0]}
	if len(fields) < 2 {
		return l, fmt.Errorf("level %s has neither packages nor a command", l.level)
	}
	if fields[1] == "!" {
		l.command = strings.Join(fields[2:], " ")
		return l, nil
	}
	l.packages = fields[1:]
	if i := slices.Index(l.packages, "--"); i >= 0 {
		l.packages, l.flags = l.packages[:i], l.packages[i+1:]
	}
	return l, nil
}

// eachLine calls fn with each line that is neither empty nor a comment. Errors
// name the line.
func eachLine(r io.Reader, fn func(string) error) error {
	scanner := bufio.NewScanner(r)
	for n := 1; scanner.Scan(); n++ {
		text := strings.TrimSpace(scanner.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		if err := fn(text); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return scanner.Err()
}
