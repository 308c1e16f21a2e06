package maps

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/bpf"
)

// smallSizes are enough for tests of the accessors.
func smallSizes() Sizes {
	return Sizes{Frontends: 4, ServicePorts: 4, Backends: 8, Slots: 64, Flows: 1024, HalfOpen: 1024, Closed: 1024, Affinity: 64, SourceRanges: 4}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to create BPF maps")
	}
}

// newSet creates unpinned maps that are closed with the test.
func newSet(t *testing.T, sizes Sizes) *Set {
	t.Helper()
	needRoot(t)
	s, err := Create(sizes)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, s)
	return s
}

func closeLater(t *testing.T, s *Set) {
	t.Helper()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// privateBPFFS mounts a bpffs of its own until the test ends.
func privateBPFFS(t *testing.T) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	return dir
}

func TestMapsAreCreatedInTheSizesAskedFor(t *testing.T) {
	s := newSet(t, smallSizes())
	if diff := cmp.Diff(smallSizes(), s.Sizes()); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{bpf.LayoutMapBackends, bpf.LayoutMapBackendStats} {
		if got := s.Replacements()[name].MaxEntries(); got != 8 {
			t.Errorf("map %s has %d entries, want 8", name, got)
		}
	}
}

func TestAMapWithoutRoomIsNotCreated(t *testing.T) {
	sizes := smallSizes()
	sizes.Slots = 0
	_, err := Create(sizes)
	if err == nil || !strings.Contains(err.Error(), "map slots: size 0") {
		t.Errorf("error is %v", err)
	}
}

func TestProgramsAreGivenEveryMap(t *testing.T) {
	s := newSet(t, smallSizes())
	got := s.Replacements()
	if len(got) != len(mapNames()) {
		t.Errorf("%d replacements for %d maps", len(got), len(mapNames()))
	}
	delete(got, bpf.LayoutMapSlots)
	if s.Replacements()[bpf.LayoutMapSlots] == nil {
		t.Error("changing the replacements changed the set")
	}
}

func TestPinnedMapsAreOpenedWithWhatIsInThem(t *testing.T) {
	dir := filepath.Join(privateBPFFS(t), "1", "maps")
	made := newSet(t, smallSizes())
	fill(t, made)
	if err := made.Pin(dir); err != nil {
		t.Fatal(err)
	}
	want, err := made.Contents()
	if err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{false, true} {
		s, err := Open(dir, readOnly)
		if err != nil {
			t.Fatal(err)
		}
		closeLater(t, s)
		got, err := s.Contents()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, compareAddrs); diff != "" {
			t.Errorf("read-only %v:\n%s", readOnly, diff)
		}
		if n := s.Writes(); n != 0 {
			t.Errorf("reading counted as %d writes", n)
		}
	}
}

func TestWhatOneSetWritesAnotherOfTheSamePinsReads(t *testing.T) {
	dir := filepath.Join(privateBPFFS(t), "maps")
	a := newSet(t, smallSizes())
	if err := a.Pin(dir); err != nil {
		t.Fatal(err)
	}
	b, err := Open(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, b)
	fill(t, b)
	want, err := b.Contents()
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.Contents()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, compareAddrs); diff != "" {
		t.Error(diff)
	}
}

func TestAReadOnlySetRefusesEveryWrite(t *testing.T) {
	dir := filepath.Join(privateBPFFS(t), "maps")
	made := newSet(t, smallSizes())
	fill(t, made)
	if err := made.Pin(dir); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, s)
	for action, err := range map[string]error{
		"put frontend":        s.Frontends().Put(web, Service{ServicePort: 9}),
		"delete frontend":     s.Frontends().Delete(web),
		"put service port":    s.ServicePorts().Put(1, webPort),
		"delete service port": s.ServicePorts().Delete(1),
		"put backend":         s.Backends().Put(0, Backend{}),
		"write table":         s.Slots().Write(Table{0, 1}, []BackendID{1}),
		"delete flow":         s.Flows().Delete(webFlowKey),
		"put runtime values":  s.Runtime().Put(Runtime{}),
		"put device":          s.Devices().Put(2, Device{}),
		"put service range":   s.ServiceCIDRs().Put(cidr4),
		"put address":         s.Addresses(NodeAddress).Put(both, AddressNode),
		"delete address":      s.Addresses(ServiceAddress).Delete(web.Addr),
		"delete device":       s.Devices().Delete(2),
		"put station":         s.Stations().Put(tagged, 2),
		"delete station":      s.Stations().Delete(tagged),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), action) {
			t.Errorf("%s: error is %v", action, err)
		}
	}
	if n := s.Writes(); n != 0 {
		t.Errorf("refused writes counted as %d", n)
	}
}

func TestPinsThatDoNotFitTheLayoutAreNamed(t *testing.T) {
	tests := []struct {
		name    string
		replace string
		spec    ebpf.MapSpec // of the map that is pinned instead; zero: none
		want    []string
		absent  bool
	}{
		{
			name: "a missing pin", replace: bpf.LayoutMapSlots,
			want: []string{"open map slots"}, absent: true,
		},
		{
			name: "another key size", replace: bpf.LayoutMapFrontends,
			spec: ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: 24, MaxEntries: 4, Flags: unix.BPF_F_NO_PREALLOC},
			want: []string{"map frontends", "key 8 bytes", "key 20 bytes"},
		},
		{
			name: "another value size", replace: bpf.LayoutMapFlows,
			spec: ebpf.MapSpec{Type: ebpf.LRUHash, KeySize: 40, ValueSize: 72, MaxEntries: 1024},
			want: []string{"map flows", "value 72 bytes", "value 96 bytes"},
		},
		{
			name: "another kind", replace: bpf.LayoutMapFlows,
			spec: ebpf.MapSpec{Type: ebpf.LRUHash, KeySize: 40, ValueSize: 96, MaxEntries: 1024},
			want: []string{"map flows", "kind LRUHash", "kind Hash"},
		},
		{
			name: "slots that cannot be mapped", replace: bpf.LayoutMapSlots,
			spec: ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 64},
			want: []string{"map slots", "flags 0x0", "flags 0x400"},
		},
		{
			name: "too few counters", replace: bpf.LayoutMapCounters,
			spec: ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 64},
			want: []string{"map counters", "64 entries", "384"},
		},
		{
			name: "statistics for fewer backends than there are", replace: bpf.LayoutMapBackendStats,
			spec: ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 144, MaxEntries: 4},
			want: []string{"map backend_stats has 4 entries", "want 8"},
		},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(privateBPFFS(t), "maps")
			if err := newSet(t, smallSizes()).Pin(dir); err != nil {
				t.Fatal(err)
			}
			replacePin(t, filepath.Join(dir, tc.replace), tc.spec)
			_, err := Open(dir, true)
			if err == nil {
				t.Fatal("opened")
			}
			for _, want := range append(tc.want, dir) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not mention %q", err, want)
				}
			}
			if got := errors.Is(err, fs.ErrNotExist); got != tc.absent {
				t.Errorf("errors.Is(%q, fs.ErrNotExist) is %v", err, got)
			}
		})
	}
}

// replacePin puts a map of the given spec where another is pinned.
func replacePin(t *testing.T, path string, spec ebpf.MapSpec) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if spec.Type == ebpf.UnspecifiedMap {
		return
	}
	spec.Name = filepath.Base(path)
	m, err := ebpf.NewMap(&spec)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Pin(path); err != nil {
		t.Fatal(err)
	}
}

func TestAPinThatFailsLeavesNoPins(t *testing.T) {
	dir := filepath.Join(privateBPFFS(t), "maps")
	other := newSet(t, smallSizes())
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	last := mapNames()[len(mapNames())-1]
	if err := other.maps[last].Pin(filepath.Join(dir, last)); err != nil {
		t.Fatal(err)
	}
	err := newSet(t, smallSizes()).Pin(dir)
	if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "pin map "+last) {
		t.Errorf("error is %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := slices.Collect(func(yield func(string) bool) {
		for _, e := range left {
			if !yield(e.Name()) {
				return
			}
		}
	})
	if diff := cmp.Diff([]string{last}, names); diff != "" {
		t.Error(diff)
	}
}
