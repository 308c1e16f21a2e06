package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/loader"
)

func TestPreflightFailsOnlyWithoutARequiredFeature(t *testing.T) {
	required := loader.Feature{Name: "walking", Since: "2.6", Present: true}
	optional := loader.Feature{Name: "flying", Since: "7.0", Fallback: "walking"}
	missing := loader.Feature{Name: "breathing", Since: "1.0"}
	for _, tc := range []struct {
		name   string
		survey []loader.Feature
		want   error
		says   string
	}{
		{"an optional one is missing", []loader.Feature{required, optional}, nil, "Linux 6.1.0 suffices"},
		{"a required one is missing", []loader.Feature{required, missing}, errSilent, "Linux 6.1.0 does not suffice"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			err := printPreflight(&out, newPreflightReport("6.1.0", tc.survey), "table")
			if !errors.Is(err, tc.want) || !strings.Contains(out.String(), tc.says) {
				t.Errorf("error %v, want %v; output lacks %q:\n%s", err, tc.want, tc.says, out.String())
			}
		})
	}
}

func TestPreflightAsJSONHasEveryFeature(t *testing.T) {
	survey := []loader.Feature{
		{Name: "walking", Since: "2.6", Present: true},
		{Name: "flying", Since: "7.0", Fallback: "walking"},
	}
	var out bytes.Buffer
	if err := printPreflight(&out, newPreflightReport("6.1.0", survey), "json"); err != nil {
		t.Fatal(err)
	}
	var got preflightReport
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := preflightReport{
		Kernel: "6.1.0", MinimumKernel: loader.MinimumKernel, OK: true,
		Features: []preflightFeature{
			{Name: "walking", Since: "2.6", Required: true, Present: true},
			{Name: "flying", Since: "7.0", Fallback: "walking"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
