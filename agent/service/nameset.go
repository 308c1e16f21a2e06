package service

import (
	"slices"
	"strings"
)

// NameSet is a set of names, of zones or of nodes, in one value that can be
// compared and shared. The zero value is the empty set.
type NameSet string

// nameSeparator is in no name Kubernetes allows.
const nameSeparator = "\x00"

// NewNameSet returns the set of these names; an empty one is none.
func NewNameSet(names ...string) NameSet {
	set := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "" })
	slices.Sort(set)
	return NameSet(strings.Join(slices.Compact(set), nameSeparator))
}

// Names returns the names in s, sorted.
func (s NameSet) Names() []string {
	if s == "" {
		return nil
	}
	return strings.Split(string(s), nameSeparator)
}

// Has reports whether name is in s; the empty name never is.
func (s NameSet) Has(name string) bool {
	if name == "" {
		return false
	}
	for n := range strings.SplitSeq(string(s), nameSeparator) {
		if n == name {
			return true
		}
	}
	return false
}
