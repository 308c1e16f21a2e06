package leftovers

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Machine is what is asked about the rules of a node, and told to change them.
type Machine interface {
	// Has reports whether a program is there.
	Has(program string) bool
	// Run executes a program and returns its standard output.
	Run(ctx context.Context, stdin, program string, args ...string) (string, error)
	// Read returns the contents of a file; the error wraps fs.ErrNotExist if there is
	// none.
	Read(path string) (string, error)
}

// Local is the machine, and the network namespace, of this process.
type Local struct{}

// Has looks in PATH, and where system programs are if PATH lacks that.
func (Local) Has(program string) bool { return path(program) != "" }

// Run executes the program.
func (Local) Run(ctx context.Context, stdin, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path(program), args...)
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", commandLine(program, args), err, strings.TrimSpace(said.String()))
	}
	return out.String(), nil
}

// Read reads the file.
func (Local) Read(path string) (string, error) {
	b, err := os.ReadFile(path)
	return string(b), err
}

// path returns where a program is; empty: nowhere.
func path(program string) string {
	for _, name := range []string{program, "/usr/sbin/" + program, "/sbin/" + program} {
		if p, err := exec.LookPath(name); err == nil {
			return p
		}
	}
	return ""
}

func commandLine(program string, args []string) string {
	return strings.Join(append([]string{program}, args...), " ")
}
