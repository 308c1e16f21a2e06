package loader

import (
	"errors"
	"fmt"
	"slices"

	stdmaps "maps"

	"github.com/vishvananda/netlink"
)

// deviceTable is a map that says something of the devices of the node.
type deviceTable[K comparable, V any] interface {
	Put(K, V) error
	Delete(K) error
	All() (map[K]V, error)
}

// syncTable makes m contain what want says of the devices there are, by apply, which
// writes only differences. what names it in errors.
func syncTable[K comparable, V any](what string, m deviceTable[K, V], want func([]netlink.Link) map[K]V,
	apply func(have, want map[K]V) error,
) error {
	devices, err := dump(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("sync %s: list devices: %w", what, err)
	}
	have, err := m.All()
	if err != nil {
		return fmt.Errorf("sync %s: %w", what, err)
	}
	if err := apply(have, want(devices)); err != nil {
		return fmt.Errorf("sync %s: %w", what, err)
	}
	return nil
}

// putMissing writes what m has not, or has otherwise.
func putMissing[K, V comparable](m deviceTable[K, V], have, want map[K]V, compare func(K, K) int) error {
	var errs []error
	for _, k := range slices.SortedFunc(stdmaps.Keys(want), compare) {
		if v, ok := have[k]; !ok || v != want[k] {
			errs = append(errs, m.Put(k, want[k]))
		}
	}
	return errors.Join(errs...)
}

// deleteRest removes what m has beyond want.
func deleteRest[K, V comparable](m deviceTable[K, V], have, want map[K]V, compare func(K, K) int) error {
	var errs []error
	for _, k := range slices.SortedFunc(stdmaps.Keys(have), compare) {
		if _, ok := want[k]; !ok {
			errs = append(errs, m.Delete(k))
		}
	}
	return errors.Join(errs...)
}
