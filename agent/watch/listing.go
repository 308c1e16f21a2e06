package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// readAttempts bounds how often a directory that changes under the reader is
// read again at once.
const readAttempts = 5

// manifestFile is one file of a directory.
type manifestFile struct {
	path string
	data []byte
}

// fileState tells versions of a file, or of the directory itself, apart
// without reading it.
type fileState struct {
	path     string
	target   string // path with all symbolic links resolved
	mode     fs.FileMode
	size     int64
	modified int64 // ns since 1970
	dev, ino uint64
}

// readManifests returns the manifests of dir in one version: files that are
// replaced together are never mixed. The listing describes that version; it
// is nil with an error, so that the next comparison finds a difference.
func readManifests(dir string) ([]manifestFile, []fileState, error) {
	for range readAttempts {
		before, err := list(dir)
		if err != nil {
			return nil, nil, err
		}
		files, readErr := readFiles(before[1:])
		after, err := list(dir)
		if err != nil {
			return nil, nil, err
		}
		if !slices.Equal(before, after) {
			continue
		}
		if readErr != nil {
			return nil, nil, readErr
		}
		return files, before, nil
	}
	return nil, nil, fmt.Errorf("%s: changes while it is read", dir)
}

// list describes dir (first) and its manifests, sorted by name.
func list(dir string) ([]fileState, error) {
	self, err := stat(dir)
	if err != nil {
		return nil, err
	}
	if !self.mode.IsDir() {
		return nil, &fs.PathError{Op: "list", Path: dir, Err: syscall.ENOTDIR}
	}
	// What else changes in the directory is no news.
	self.size, self.modified = 0, 0
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	states := []fileState{self}
	for _, e := range entries {
		if !isManifest(e.Name()) {
			continue
		}
		s, err := stat(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if !s.mode.IsDir() {
			states = append(states, s)
		}
	}
	return states, nil
}

func isManifest(name string) bool {
	if strings.HasPrefix(name, ".") {
		return false
	}
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

func stat(path string) (fileState, error) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fileState{}, err
	}
	info, err := os.Stat(target)
	if err != nil {
		return fileState{}, err
	}
	s := fileState{path: path, target: target, mode: info.Mode(), size: info.Size(), modified: info.ModTime().UnixNano()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.dev, s.ino = uint64(sys.Dev), uint64(sys.Ino)
	}
	return s, nil
}

func readFiles(states []fileState) ([]manifestFile, error) {
	var files []manifestFile
	var errs []error
	for _, s := range states {
		data, err := readFile(s)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		files = append(files, manifestFile{path: s.path, data: data})
	}
	return files, errors.Join(errs...)
}

// readFile refuses an empty file: it is more likely one that is being written
// than the wish to delete all that was in it.
func readFile(s fileState) ([]byte, error) {
	if !s.mode.IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", s.path)
	}
	if s.size == 0 {
		return nil, fmt.Errorf("%s: empty; remove the file to delete what was in it", s.path)
	}
	return os.ReadFile(s.target)
}
