package maps

import (
	"errors"
	"fmt"

	"github.com/ebb-lb/ebb/bpf"
)

// Frontends is access to the map frontends.
type Frontends struct{ e entries }

// Put inserts or replaces the entry for f in one step: no packet sees a mix of
// the old value and the new one. A full map is ErrFull.
func (a Frontends) Put(f Frontend, s Service) error {
	if err := errors.Join(f.Validate(), s.Validate()); err != nil {
		return fmt.Errorf("put frontend %s: %w", f, err)
	}
	k, v := toFrontendKey(f), toFrontend(s)
	if err := a.e.put(&k, &v); err != nil {
		return fmt.Errorf("put frontend %s: %w", f, err)
	}
	return nil
}

// Delete removes f. An absent entry is not an error: reconcilers retry.
func (a Frontends) Delete(f Frontend) error {
	if checkAddr(f.Addr) != nil {
		return nil // cannot be in the map, and must not be taken for what is
	}
	k := toFrontendKey(f)
	if err := a.e.del(&k); err != nil {
		return fmt.Errorf("delete frontend %s: %w", f, err)
	}
	return nil
}

// All reads every entry. The map returned is the caller's.
func (a Frontends) All() (map[Frontend]Service, error) {
	out := make(map[Frontend]Service)
	err := each(a.e.m, func(k *bpf.LayoutFrontendKey, v *bpf.LayoutFrontend) bool {
		out[fromFrontendKey(k)] = fromFrontend(v)
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read frontends: %w", err)
	}
	return out, nil
}
