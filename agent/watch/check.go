package watch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Checked is what a directory of manifests holds.
type Checked struct {
	Services, Slices int
	// Ignored says what is not taken and why, a sentence each: objects, files and
	// folders.
	Ignored []string
}

// Check reads a directory of manifests as a [Dir] does, and forgets it. The error
// joins everything for which the directory would be refused.
func Check(dir string, opts Options) (Checked, error) {
	files, _, err := readManifests(dir)
	if err != nil {
		return Checked{}, err
	}
	skipped, err := notTaken(dir)
	if err != nil {
		return Checked{}, err
	}
	c, err := parse(files, opts)
	if err != nil {
		return Checked{}, err
	}
	return Checked{Services: len(c.Services), Slices: len(c.Slices), Ignored: append(skipped, c.ignored...)}, nil
}

// notTaken names what is in dir and is no manifest: somebody may think it is one.
// Hidden files are those of editors, and of mounted ConfigMaps.
func notTaken(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch info, err := os.Stat(path); {
		case strings.HasPrefix(e.Name(), "."):
		case err == nil && info.IsDir():
			all = append(all, fmt.Sprintf("%s: folders are not looked into", path))
		case !isManifest(e.Name()):
			all = append(all, fmt.Sprintf("%s: not taken: names of manifests end in .yaml, .yml or .json", path))
		}
	}
	return all, nil
}
