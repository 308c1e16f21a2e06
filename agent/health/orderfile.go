package health

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ebb-lb/ebb/agent/drain"
)

// OrderFile is where "ebb drain node" leaves its order: a file, so that it needs
// neither API server nor agent, and outlives both.
type OrderFile string

// OrderFileIn returns the file in a state directory.
func OrderFileIn(dir string) OrderFile { return OrderFile(filepath.Join(dir, "drain.json")) }

// Current returns the order in force, nil if there is none. Somebody wanted a
// file that cannot be read to drain the node: it does, and says what is wrong.
func (f OrderFile) Current(now time.Time) *drain.Order {
	o, err := f.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return &drain.Order{Reason: err.Error()}
	case !o.InForce(now):
		return nil
	}
	return &o
}

func (f OrderFile) read() (drain.Order, error) {
	text, err := os.ReadFile(string(f))
	if err != nil {
		return drain.Order{}, err
	}
	var o drain.Order
	if err := json.Unmarshal(text, &o); err != nil {
		return drain.Order{}, fmt.Errorf("%s: %w", f, err)
	}
	return o, nil
}

// Write puts o in force, in place of an earlier one.
func (f OrderFile) Write(o drain.Order) error {
	if err := os.MkdirAll(filepath.Dir(string(f)), 0o755); err != nil {
		return fmt.Errorf("drain order: %w", err)
	}
	text, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("drain order: %w", err)
	}
	aside := string(f) + ".new"
	if err := os.WriteFile(aside, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("drain order: %w", err)
	}
	if err := os.Rename(aside, string(f)); err != nil {
		return fmt.Errorf("drain order: %w", err)
	}
	return nil
}

// Remove ends the order; existed is false if there was none.
func (f OrderFile) Remove() (existed bool, err error) {
	err = os.Remove(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return true, fmt.Errorf("drain order: %w", err)
	}
	return true, nil
}
