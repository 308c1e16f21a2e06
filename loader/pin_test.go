package loader

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/maps"
)

// smallSizes keep the kernel from allocating what no test fills.
func smallSizes() maps.Sizes {
	return maps.Sizes{Frontends: 64, ServicePorts: 64, Backends: 64, Slots: 1024, Flows: 256, HalfOpen: 256, Closed: 256, Affinity: 64, SourceRanges: 64}
}

// openOrCreate is OpenOrCreate that must succeed, with what it logged.
func openOrCreate(t testing.TB, dir string, sizes maps.Sizes) (*maps.Set, bool, string) {
	t.Helper()
	var logs bytes.Buffer
	set, created, err := OpenOrCreate(dir, sizes, slog.New(slog.NewTextHandler(&logs, nil)))
	must(t, "open or create", err)
	t.Cleanup(func() { set.Close() })
	return set, created, logs.String()
}

func TestPinnedMapsSurviveTheAgent(t *testing.T) {
	dir := newBPFFS(t)
	set, created, _ := openOrCreate(t, dir, smallSizes())
	if !created {
		t.Error("the first agent did not create the maps")
	}
	must(t, "put", set.Devices().Put(7, maps.Device{XDPTx: true}))
	must(t, "close", set.Close())

	set, created, logs := openOrCreate(t, dir, smallSizes())
	if created || logs != "" {
		t.Errorf("the second agent: created %t, logged %q", created, logs)
	}
	got, err := set.Devices().All()
	must(t, "read", err)
	if diff := cmp.Diff(map[uint32]maps.Device{7: {XDPTx: true}}, got, comparableAddr); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
}

func TestPinnedMapsKeepTheirSizeAndTheFlagIsNamed(t *testing.T) {
	dir := newBPFFS(t)
	openOrCreate(t, dir, smallSizes())
	larger := smallSizes()
	larger.Backends, larger.Flows = 128, 512
	set, created, logs := openOrCreate(t, dir, larger)
	if created {
		t.Error("the maps were created again")
	}
	if diff := cmp.Diff(smallSizes(), set.Sizes()); diff != "" {
		t.Errorf("sizes (-want +got):\n%s", diff)
	}
	for _, flag := range []string{"flag=--max-backends entries=64 wanted=128", "flag=--max-flows entries=256 wanted=512"} {
		if !strings.Contains(logs, flag) {
			t.Errorf("log has no %q:\n%s", flag, logs)
		}
	}
	if n := strings.Count(logs, "level=WARN"); n != 2 {
		t.Errorf("%d warnings, want 2:\n%s", n, logs)
	}
}

func TestCrashBeforeTheRenameLeavesNothingThatIsOpened(t *testing.T) {
	dir := newBPFFS(t)
	half, err := maps.Create(smallSizes())
	must(t, "create", err)
	aside := layoutDir(dir) + asideSuffix
	must(t, "pin aside", pinAside(half, aside))
	must(t, "close", half.Close())
	// Half of the pins were made when the agent died.
	must(t, "remove", os.Remove(filepath.Join(aside, "slots")))

	_, created, _ := openOrCreate(t, dir, smallSizes())
	if !created {
		t.Error("the maps of the crashed agent were opened")
	}
	if _, err := os.Stat(aside); !os.IsNotExist(err) {
		t.Errorf("what the crash left is still there: %v", err)
	}
}

func TestMapsAreCreatedBesideLinksThatAreThere(t *testing.T) {
	dir := newBPFFS(t)
	must(t, "mkdir", os.MkdirAll(LinksDir(dir), 0o700))
	if _, created, _ := openOrCreate(t, dir, smallSizes()); !created {
		t.Error("maps were not created")
	}
}

func TestIncompletePinsAreAnErrorNotAReset(t *testing.T) {
	dir := newBPFFS(t)
	openOrCreate(t, dir, smallSizes())
	must(t, "remove", os.Remove(filepath.Join(MapsDir(dir), "backends")))
	_, _, err := OpenOrCreate(dir, smallSizes(), discard())
	if got := errString(err); !strings.Contains(got, "open pinned maps: ") || !strings.Contains(got, "backends") {
		t.Errorf("got %v, want an error naming the map", err)
	}
}

func TestRemovePinsLeavesWhatIsNotEbbs(t *testing.T) {
	dir := filepath.Join(newBPFFS(t), "ebb")
	openOrCreate(t, dir, smallSizes())
	for _, name := range []string{"0", "2-new", "somebody"} {
		must(t, "mkdir", os.MkdirAll(filepath.Join(dir, name), 0o700))
	}
	must(t, "remove", RemovePins(dir))
	entries, err := os.ReadDir(dir)
	must(t, "read", err)
	if len(entries) != 1 || entries[0].Name() != "somebody" {
		t.Errorf("left: %v, want only somebody", entries)
	}
	must(t, "rmdir", os.Remove(filepath.Join(dir, "somebody")))
	for range 2 { // the second time there is nothing left
		must(t, "remove", RemovePins(dir))
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

func TestRemovePinsKeepsAMountPoint(t *testing.T) {
	dir := newBPFFS(t)
	openOrCreate(t, dir, smallSizes())
	must(t, "remove", RemovePins(dir))
	if _, err := os.Stat(layoutDir(dir)); !os.IsNotExist(err) {
		t.Errorf("pins are still there: %v", err)
	}
	if !onFS(t, dir) {
		t.Error("the mount point is gone")
	}
}
