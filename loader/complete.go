package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// never is the time of pins whose maps were never completely in step.
var never = time.Unix(0, 0)

// MarkComplete notes that at t the maps pinned below dir held everything there
// was to know. The note is the modification time of their directory: it lives
// exactly as long as what it is about.
func MarkComplete(dir string, t time.Time) error {
	if err := os.Chtimes(MapsDir(dir), t, t); err != nil {
		return fmt.Errorf("note the time of a complete sync: %w", err)
	}
	return nil
}

// LastComplete returns what MarkComplete noted last; zero if it never did.
func LastComplete(dir string) (time.Time, error) {
	info, err := os.Stat(MapsDir(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read the time of the last complete sync: %w", err)
	}
	if t := info.ModTime(); !t.Equal(never) {
		return t, nil
	}
	return time.Time{}, nil
}
