// Package suite is what the test binaries that work in a lab have in common: the
// program under test, and the client of the lab, which is the test binary itself
// in another process. It knows no test.
package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ebb-lb/ebb/tests/lab/load"
)

// loadEnv makes the test binary the client of a lab: it holds a load.Config. It is
// no option of ebb, which takes names that begin with EBB_.
const loadEnv = "LAB_LOAD"

// Run is the body of TestMain: it gives ebb the path of the program under test,
// runs the tests and ends the process. In a client it produces load instead.
func Run(m *testing.M, ebb *string) {
	PlayClient()
	dir, err := os.MkdirTemp("", "ebb-suite-")
	if err != nil {
		exit(err)
	}
	if *ebb, err = program(dir); err != nil {
		exit(errors.Join(err, os.RemoveAll(dir)))
	}
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		exit(err)
	}
	os.Exit(code)
}

// PlayClient does what a client does and ends the process, where it is one.
func PlayClient() {
	if cfg, ok := os.LookupEnv(loadEnv); ok {
		exit(produceLoad(cfg))
	}
}

// program builds ebb from the source beside the tests. Where there is no Go, as in
// a virtual machine, whoever brought the tests there brought ebb in the PATH.
func program(dir string) (string, error) {
	if _, err := exec.LookPath("go"); err != nil {
		return exec.LookPath("ebb")
	}
	path := filepath.Join(dir, "ebb")
	out, err := exec.Command("go", "build", "-o", path, "github.com/ebb-lb/ebb/cmd/ebb").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build ebb: %w\n%s", err, out)
	}
	return path, nil
}

func exit(err error) {
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// LoadCommand returns the command of a client that produces the load of cfg, for
// test binaries whose TestMain calls Run or PlayClient; it takes commands and gives
// reports as package load has them.
func LoadCommand(cfg load.Config) (*exec.Cmd, error) {
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), loadEnv+"="+string(text))
	return cmd, nil
}

// produceLoad is the whole process of a lab's client.
func produceLoad(text string) error {
	var cfg load.Config
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	return load.NewRunner(cfg).Run(context.Background(), load.ReadCommands(os.Stdin), func(r load.Report) error {
		return load.WriteLine(os.Stdout, r)
	})
}
