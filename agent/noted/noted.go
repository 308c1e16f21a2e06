// Package noted keeps notes of what an agent has changed in the kernel's settings,
// so that the next agent and "ebb cleanup" know what is theirs. Settings end with
// the boot and the network namespace they are of, and so do notes of them. It
// deliberately does not know what is noted.
package noted

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/loader"
)

const bootFile = "/proc/sys/kernel/random/boot_id"

// Origin is the boot and the network namespace a note is of. Notes embed it.
type Origin struct {
	Boot  string `json:"boot"`
	Netns uint64 `json:"netns"`
}

// Here returns the origin of what the calling thread changes.
func Here() (Origin, error) {
	boot, err := os.ReadFile(bootFile)
	if err != nil {
		return Origin{}, err
	}
	netns, err := loader.NetnsCookie()
	return Origin{Boot: strings.TrimSpace(string(boot)), Netns: netns}, err
}

// Writable returns where a setting of the kernel can be written, if anywhere: a container
// may only read /proc/sys, and has the node's mounted at /host.
func Writable(setting string) string {
	mounted := "/host" + setting
	if unix.Access(setting, unix.W_OK) != nil && unix.Access(mounted, unix.W_OK) == nil {
		return mounted
	}
	return setting
}

// File is the path of a note. One process at a time may change it.
type File string

// Read fills in v, which points to a note. No file leaves it as it is.
func (f File) Read(v any) error {
	text, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", f, err)
	}
	return nil
}

// Write replaces the note in one step.
func (f File) Write(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(f.aside(), append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(f.aside(), string(f))
}

// Remove removes the note; one that is not there is no error.
func (f File) Remove() error {
	return errors.Join(remove(string(f)), remove(f.aside()))
}

// aside is where a note is written before it is the one in force.
func (f File) aside() string { return string(f) + ".new" }

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
