package binaries

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestABuildThatFailsLeavesNothing(t *testing.T) {
	module, cache := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(module, "go.mod"), []byte("module empty\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := build(t.Context(), module, "v0", filepath.Join(cache, "v0"), io.Discard); err == nil {
		t.Error("a module without Kubernetes was built")
	}
	left, err := os.ReadDir(cache)
	if err != nil || len(left) != 0 {
		t.Errorf("left in the cache: %v, %v", left, err)
	}
}

func TestWhatIsBuiltIsNotBuiltAgain(t *testing.T) {
	built := t.TempDir()
	if err := build(t.Context(), "no module", "v0", built, io.Discard); err != nil {
		t.Error(err)
	}
}

func TestAnotherDependencyIsAnotherBuild(t *testing.T) {
	module := t.TempDir()
	var sums []string
	for _, text := range []string{"one", "two"} {
		for _, name := range []string{"go.mod", "go.sum"} {
			if err := os.WriteFile(filepath.Join(module, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		sum, err := fingerprint(module)
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, sum)
	}
	if sums[0] == sums[1] {
		t.Errorf("both builds are called %s", sums[0])
	}
}
