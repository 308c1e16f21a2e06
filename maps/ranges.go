package maps

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/ebb-lb/ebb/bpf"
)

// SourceRange lets clients with an address in Prefix use the restricted
// frontends of a service port. Prefix is masked and never v4-mapped.
type SourceRange struct {
	ServicePort ServicePortID
	Prefix      netip.Prefix
}

// Compare orders ranges by service port, then prefix.
func (r SourceRange) Compare(s SourceRange) int {
	if r.ServicePort != s.ServicePort {
		return int(int64(r.ServicePort) - int64(s.ServicePort))
	}
	return r.Prefix.Compare(s.Prefix)
}

// Validate reports why r cannot be an entry.
func (r SourceRange) Validate() error { return checkPrefix(r.Prefix) }

// checkPrefix refuses what would not come back from a map as it went in.
func checkPrefix(p netip.Prefix) error {
	if !p.IsValid() {
		return errors.New("no prefix")
	}
	if p != p.Masked() {
		return fmt.Errorf("prefix %s has bits beyond its length", p)
	}
	return checkAddr(p.Addr())
}

// SourceRanges is access to the map source_ranges.
type SourceRanges struct{ e entries }

// Put inserts r; again is no error. A full map is ErrFull.
func (a SourceRanges) Put(r SourceRange) error {
	if err := r.Validate(); err != nil {
		return fmt.Errorf("put source range %s: %w", r.Prefix, err)
	}
	k, v := toSourceRangeKey(r), uint32(1)
	if err := a.e.put(&k, &v); err != nil {
		return fmt.Errorf("put source range %s: %w", r.Prefix, err)
	}
	return nil
}

// Delete removes r. An absent entry is not an error: reconcilers retry.
func (a SourceRanges) Delete(r SourceRange) error {
	if r.Validate() != nil {
		return nil // cannot be in the map, and must not be taken for what is
	}
	k := toSourceRangeKey(r)
	if err := a.e.del(&k); err != nil {
		return fmt.Errorf("delete source range %s: %w", r.Prefix, err)
	}
	return nil
}

// All reads every range. The map returned is the caller's.
func (a SourceRanges) All() (map[SourceRange]struct{}, error) {
	out := make(map[SourceRange]struct{})
	err := each(a.e.m, func(k *bpf.LayoutSourceRangeKey, _ *uint32) bool {
		out[fromSourceRangeKey(k)] = struct{}{}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read source ranges: %w", err)
	}
	return out, nil
}

// CIDRs is access to a map whose keys are ranges of addresses and say all there is.
type CIDRs struct {
	e    entries
	what string // of one, in errors
}

// Put inserts p; again is no error. A full map is ErrFull.
func (a CIDRs) Put(p netip.Prefix) error {
	if err := checkPrefix(p); err != nil {
		return fmt.Errorf("put %s range %s: %w", a.what, p, err)
	}
	k, v := toCIDRKey(p), uint32(1)
	if err := a.e.put(&k, &v); err != nil {
		return fmt.Errorf("put %s range %s: %w", a.what, p, err)
	}
	return nil
}

// Delete removes p. An absent entry is not an error: reconcilers retry.
func (a CIDRs) Delete(p netip.Prefix) error {
	if checkPrefix(p) != nil {
		return nil // cannot be in the map, and must not be taken for what is
	}
	k := toCIDRKey(p)
	if err := a.e.del(&k); err != nil {
		return fmt.Errorf("delete %s range %s: %w", a.what, p, err)
	}
	return nil
}

// All reads every range. The map returned is the caller's.
func (a CIDRs) All() (map[netip.Prefix]struct{}, error) {
	out := make(map[netip.Prefix]struct{})
	err := each(a.e.m, func(k *bpf.LayoutCidrKey, _ *uint32) bool {
		out[fromCIDRKey(k)] = struct{}{}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read %s ranges: %w", a.what, err)
	}
	return out, nil
}
