package conntrack

import (
	"fmt"
	"path/filepath"

	"github.com/ebb-lb/ebb/agent/noted"
)

// Kept is the note of what an agent has raised in its network namespace.
type Kept string

// KeptIn returns the one of a state directory.
func KeptIn(dir string) Kept { return Kept(filepath.Join(dir, "conntrack-settings.json")) }

// Raise brings the kernel's settings to what l wants, see [noted.Settings.Raise].
// Without netfilter's connection tracking there is nothing to do.
func (k Kept) Raise(l Limits) ([]noted.Change, error) {
	return noted.Settings(k).Raise(l.settings(cores()))
}

// Release gives back what is still as the agent has left it, and forgets all.
func (k Kept) Release() error {
	if err := noted.Settings(k).Release(); err != nil {
		return fmt.Errorf("give conntrack settings back: %w", err)
	}
	return nil
}
