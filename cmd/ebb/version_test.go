package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/ebb-lb/ebb/maps"
)

func runVersion(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := versionCmd()
	cmd.SetOut(&out)
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.Execute()
	return out.String(), err
}

func TestVersionSaysWhatABuildIsFor(t *testing.T) {
	text, err := runVersion(t, "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var r versionReport
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	if r.Version == "" || r.MapLayout != maps.LayoutVersion || r.MinimumKernel == "" || len(r.TestedKernels) == 0 || r.Go == "" {
		t.Errorf("%+v", r)
	}
	if text, err := runVersion(t); err != nil || !strings.HasPrefix(text, "ebb ") || strings.Count(text, "\n") != 1 {
		t.Errorf("text form %q, %v", text, err)
	}
	if _, err := runVersion(t, "-o", "xml"); err == nil {
		t.Error("-o xml was accepted")
	}
}
