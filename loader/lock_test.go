package loader

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

func TestPinsHaveOneOwner(t *testing.T) {
	dir := newBPFFS(t)
	first, err := AcquireLock(dir)
	must(t, "first", err)
	_, err = AcquireLock(dir)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second: %v, want ErrLocked naming %s", err, dir)
	}
	must(t, "release", first.Release())
	third, err := AcquireLock(dir)
	must(t, "after release", err)
	must(t, "release", third.Release())
}

func TestLockOfAMissingDirectoryIsAnError(t *testing.T) {
	if _, err := AcquireLock(filepath.Join(t.TempDir(), "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
