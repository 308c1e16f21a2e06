package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
)

// asideSuffix marks a directory of maps that is being filled. (A dot would be
// refused by the bpf filesystem.)
const asideSuffix = "-new"

// layoutDir returns the directory of this version's pins below dir.
func layoutDir(dir string) string { return filepath.Join(dir, strconv.Itoa(maps.LayoutVersion)) }

// MapsDir returns where this version's maps are pinned below dir.
func MapsDir(dir string) string { return filepath.Join(layoutDir(dir), "maps") }

// LinksDir returns where this version's links are pinned below dir.
func LinksDir(dir string) string { return filepath.Join(layoutDir(dir), "links") }

// OpenOrCreate opens the maps pinned below dir, or creates and pins them if
// there are none; created says which. Either all maps are pinned or none: they
// are pinned aside and moved into place by one rename, so a crash in between
// leaves nothing that is ever opened. Pinned maps keep their sizes; what differs
// from sizes is logged. The caller must hold the [Lock] of dir, and closes the Set.
func OpenOrCreate(dir string, sizes maps.Sizes, log *slog.Logger) (set *maps.Set, created bool, err error) {
	_, err = os.Stat(MapsDir(dir))
	switch {
	case err == nil:
		set, err = maps.Open(MapsDir(dir), false)
		if err != nil {
			return nil, false, fmt.Errorf("open pinned maps: %w", err)
		}
		granted, err := sizes.Granted()
		if err != nil {
			return nil, false, errors.Join(err, set.Close())
		}
		warnSizes(log, set.Sizes(), granted)
		return set, false, nil
	case errors.Is(err, fs.ErrNotExist):
		set, err = create(dir, sizes)
		if err != nil {
			return nil, false, fmt.Errorf("create pinned maps: %w", err)
		}
		return set, true, nil
	}
	return nil, false, fmt.Errorf("open pinned maps: %w", err)
}

// create creates the maps and moves their pins into place.
func create(dir string, sizes maps.Sizes) (*maps.Set, error) {
	set, err := maps.Create(sizes)
	if err != nil {
		return nil, err
	}
	aside := layoutDir(dir) + asideSuffix
	if err := pinAside(set, aside); err != nil {
		return nil, errors.Join(err, set.Close())
	}
	if err := moveIntoPlace(aside, MapsDir(dir)); err != nil {
		return nil, errors.Join(err, set.Close())
	}
	return set, nil
}

// pinAside pins all maps in the fresh directory aside.
func pinAside(set *maps.Set, aside string) error {
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("remove what a crash left: %w", err)
	}
	if err := os.MkdirAll(aside, dirMode); err != nil {
		return fmt.Errorf("create pin directory: %w", err)
	}
	if err := set.Pin(aside); err != nil {
		return err
	}
	return os.Chtimes(aside, never, never) // see MarkComplete
}

// moveIntoPlace renames aside to its final place, which must not exist.
func moveIntoPlace(aside, final string) error {
	if err := os.MkdirAll(filepath.Dir(final), dirMode); err != nil {
		return fmt.Errorf("create pin directory: %w", err)
	}
	if err := os.Rename(aside, final); err != nil {
		return fmt.Errorf("move pins into place: %w", err)
	}
	return nil
}

// sizeFlag is the operator's choice of a map's size, in entries.
type sizeFlag struct {
	pin, flag string
	entries   uint32
}

func sizeFlags(s maps.Sizes) []sizeFlag {
	return []sizeFlag{
		{"frontends", "--max-frontends", s.Frontends},
		{"service_ports", "--max-service-ports", s.ServicePorts},
		{"backends", "--max-backends", s.Backends},
		{"slots", "--max-slots", s.Slots},
		{"flows", "--max-flows", s.Flows},
		{"half_open", "--max-half-open", s.HalfOpen},
		{"closed", "--max-closed", s.Closed},
		{"affinity", "--max-affinity", s.Affinity},
		{"source_ranges", "--max-source-ranges", s.SourceRanges},
	}
}

// warnSizes logs where the pinned maps differ from the wanted sizes.
func warnSizes(log *slog.Logger, pinned, wanted maps.Sizes) {
	have := sizeFlags(pinned)
	for i, want := range sizeFlags(wanted) {
		if have[i] != want {
			log.Warn("pinned map keeps its size", "map", want.pin, "flag", want.flag,
				"entries", have[i].entries, "wanted", want.entries)
		}
	}
}

// RemovePins removes all pins below dir, those of other layout versions too,
// and dir itself if nothing else is in it. Links that are still attached lose
// their last reference, so detach first. The caller must hold the [Lock] of dir.
func RemovePins(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	var errs []error
	others := false
	for _, e := range entries {
		if !isLayout(e.Name()) {
			others = true
			continue
		}
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	if !others {
		errs = append(errs, removeUnlessMount(dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	return nil
}

// removeUnlessMount removes the empty directory dir. A mount point stays.
func removeUnlessMount(dir string) error {
	err := os.Remove(dir)
	if errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}

// isLayout reports whether name is a layout directory or one being built.
func isLayout(name string) bool {
	_, err := strconv.ParseUint(strings.TrimSuffix(name, asideSuffix), 10, 32)
	return err == nil
}
