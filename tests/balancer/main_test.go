// Package balancer puts a real external balancer, HAProxy, in front of nodes: it
// asks their probes, and nobody who goes through it may lose anything.
package balancer

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ebb-lb/ebb/tests/lab/load"
)

// loadEnv makes the test binary the client of a lab: it holds a load.Config.
const loadEnv = "EBB_BALANCER_LOAD"

// ebb is the binary under test, built from the source beside this package.
var ebb string

func TestMain(m *testing.M) {
	if cfg, ok := os.LookupEnv(loadEnv); ok {
		exit(produceLoad(cfg))
	}
	dir, err := os.MkdirTemp("", "ebb-balancer-")
	if err != nil {
		exit(err)
	}
	ebb = filepath.Join(dir, "ebb")
	if out, err := exec.Command("go", "build", "-o", ebb, "github.com/ebb-lb/ebb/cmd/ebb").CombinedOutput(); err != nil {
		exit(fmt.Errorf("build: %w\n%s", err, out))
	}
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		exit(err)
	}
	os.Exit(code)
}

func exit(err error) {
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
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
