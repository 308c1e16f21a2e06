package mapstest

import (
	"fmt"
	stdmaps "maps"

	"github.com/ebb-lb/ebb/maps"
)

// hash is a hash map that refuses what does not fit.
type hash[K comparable, V any] struct {
	m   map[K]V
	max uint32
}

func newHash[K comparable, V any](size uint32) *hash[K, V] {
	return &hash[K, V]{m: make(map[K]V), max: size}
}

// put inserts or replaces; replacing is possible in a full map too.
func (h *hash[K, V]) put(k K, v V) (changed bool, err error) {
	if _, ok := h.m[k]; !ok && len(h.m) >= int(h.max) {
		return false, maps.ErrFull
	}
	h.m[k] = v
	return true, nil
}

func (h *hash[K, V]) del(k K) (changed bool, err error) {
	_, ok := h.m[k]
	delete(h.m, k)
	return ok, nil
}

func (h *hash[K, V]) all() map[K]V { return stdmaps.Clone(h.m) }

// wrap puts the action, formatted, before err, if there is one.
func wrap(err error, action string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(action, args...), err)
}
