package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/tools/internal/oci"
	"github.com/ebb-lb/ebb/tools/internal/source"
)

// TestTwoReleasesAreOne writes the parts of a release, without building programs, twice.
func TestTwoReleasesAreOne(t *testing.T) {
	tree := source.Tree{Dir: "../..", Version: "v1.2.3", Commit: "abc", Time: time.Unix(1_700_000_000, 0).UTC()}
	built := oci.Built{Tree: tree}
	for _, arch := range source.Arches() {
		built.Contents = append(built.Contents, oci.Content{Arch: arch, Program: []byte(arch), SBOM: []byte("{}")})
	}
	var sums []string
	for range 2 {
		dir := t.TempDir()
		if err := write(built, "example.test/ebb", dir); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		// Helm notes when a chart was packed.
		lines := slices.DeleteFunc(strings.Split(string(b), "\n"), func(l string) bool { return strings.HasSuffix(l, ".tgz") })
		sums = append(sums, strings.Join(lines, "\n"))
		for _, name := range []string{
			"ebb-v1.2.3-linux-amd64.tar.gz", "ebb-v1.2.3-linux-arm64.tar.gz", "ebb-v1.2.3-linux-amd64.spdx.json", "ebb-v1.2.3-image.tar", "ebb-1.2.3.tgz",
		} {
			if !strings.Contains(string(b), "  "+name+"\n") {
				t.Errorf("there is no %s in\n%s", name, b)
			}
		}
	}
	if sums[0] != sums[1] {
		t.Errorf("sums\n%s\nand\n%s", sums[0], sums[1])
	}
}

func TestVersionsAreSemantic(t *testing.T) {
	for v, ok := range map[string]bool{"v1.2.3": true, "v0.1.0-dev": true, "1.2.3": false, "v1.2": false, "v1.2.3 ": false, "": false} {
		if versions.MatchString(v) != ok {
			t.Errorf("%q counts as a version: %v", v, !ok)
		}
	}
}
