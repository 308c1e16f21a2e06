package demo

import (
	"errors"
	"fmt"
	"os"

	"github.com/ebb-lb/ebb/loader"
)

// ErrNotRoot is returned to a user without the rights the demo needs.
var ErrNotRoot = errors.New("root is needed to create network namespaces and to load BPF programs; try sudo")

// preflight refuses where the demo cannot work, before anything is built.
func preflight() error {
	if os.Geteuid() != 0 {
		return ErrNotRoot
	}
	if _, err := loader.Probe(loader.Wants{Sockets: true}); err != nil {
		return fmt.Errorf("this kernel cannot run ebb: %w", err)
	}
	return nil
}
