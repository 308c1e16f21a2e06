package service

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNameSet(t *testing.T) {
	tests := []struct {
		name  string
		names []string
		want  []string
	}{
		{"no names are the empty set", nil, nil},
		{"one name", []string{"a"}, []string{"a"}},
		{"names are sorted, each once", []string{"b", "a", "b"}, []string{"a", "b"}},
		{"an empty name is none", []string{"", "a", ""}, []string{"a"}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			set := NewNameSet(tc.names...)
			if diff := cmp.Diff(tc.want, set.Names()); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
			if (set == NameSet("")) != (len(tc.want) == 0) {
				t.Errorf("%q: only the empty set is the zero value", set)
			}
			for _, n := range tc.want {
				if !set.Has(n) {
					t.Errorf("%q is not in it", n)
				}
			}
		})
	}
}

func TestANameSetHasNoPartsOfNamesAndNoEmptyName(t *testing.T) {
	set := NewNameSet("zone-a", "zone-b")
	for _, n := range []string{"", "zone", "zone-", "a", "zone-a\x00zone-b"} {
		if set.Has(n) || NewNameSet().Has(n) {
			t.Errorf("%q is in it", n)
		}
	}
}

func TestTheOrderOfNamesDoesNotMatter(t *testing.T) {
	names := []string{"b", "a"}
	if NewNameSet(names...) != NewNameSet("a", "b") {
		t.Error("two sets of the same names differ")
	}
	if names[0] != "b" {
		t.Error("the names given were sorted")
	}
}
