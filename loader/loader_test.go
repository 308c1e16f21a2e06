package loader

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/bpf"
	"github.com/ebb-lb/ebb/maps"
)

// newSet returns unpinned maps of sizes no object was compiled with.
func newSet(t testing.TB) *maps.Set {
	t.Helper()
	needRoot(t)
	set, err := maps.Create(smallSizes())
	must(t, "create maps", err)
	t.Cleanup(func() { set.Close() })
	return set
}

func TestProgramsLoadWithMapsOfAnySize(t *testing.T) {
	p, err := Load(validConfig(), newSet(t))
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer p.Close()
	if p.XDP.Type() != ebpf.XDP || p.TCIngress.Type() != ebpf.SchedCLS || p.TCEgress.Type() != ebpf.SchedCLS {
		t.Errorf("types are %s, %s, %s", p.XDP.Type(), p.TCIngress.Type(), p.TCEgress.Type())
	}
}

func TestProgramsUseTheMapsTheyAreGiven(t *testing.T) {
	set := newSet(t)
	p, err := Load(validConfig(), set)
	must(t, "load", err)
	defer p.Close()
	want, err := set.Replacements()["flows"].Info()
	must(t, "map info", err)
	wantID, _ := want.ID()
	for _, prog := range []*ebpf.Program{p.XDP, p.TCIngress, p.TCEgress} {
		info, err := prog.Info()
		must(t, "program info", err)
		ids, _ := info.MapIDs()
		found := false
		for _, id := range ids {
			found = found || id == wantID
		}
		if !found {
			t.Errorf("%s uses maps %v, not flows %d", prog, ids, wantID)
		}
	}
}

func TestXDPOffDoesNotLoadXDP(t *testing.T) {
	c := validConfig()
	c.XDP = XDPOff
	p, err := Load(c, newSet(t))
	must(t, "load", err)
	defer p.Close()
	if p.XDP != nil || p.TCIngress == nil || p.TCEgress == nil {
		t.Errorf("loaded %+v, want TC only", p)
	}
}

func TestInvalidConfigLoadsNothing(t *testing.T) {
	if _, err := Load(Config{}, newSet(t)); err == nil {
		t.Error("no error")
	}
}

func TestMissingProgramIsAnError(t *testing.T) {
	needRoot(t)
	spec, err := bpf.LoadClock()
	must(t, "open", err)
	var p *ebpf.Program
	err = newPrograms(spec, nil, map[string]**ebpf.Program{"ebb_sundial": &p})
	if got := errString(err); !strings.Contains(got, "no program ebb_sundial") {
		t.Errorf("got %v", err)
	}
}

func TestMapOfAnotherLayoutIsAnError(t *testing.T) {
	set := newSet(t)
	replacements := set.Replacements()
	wrong := make(map[string]*ebpf.Map)
	for name, m := range replacements {
		wrong[name] = m
	}
	wrong["flows"] = replacements["frontends"]
	if _, err := load(validConfig(), wrong); err == nil || !strings.Contains(err.Error(), "flows") {
		t.Errorf("got %v, want an error about flows", err)
	}
}

func TestTCProgramsLoseTheirAttachType(t *testing.T) {
	needRoot(t)
	spec, err := bpf.LoadTC()
	must(t, "open", err)
	must(t, "adapt", adaptPrograms(spec))
	for name, p := range spec.Programs {
		if p.AttachType != ebpf.AttachNone {
			t.Errorf("%s has attach type %s: kernels without tcx refuse it", name, p.AttachType)
		}
	}
}

func TestXDPKeepsFragsWhereTheKernelHasThem(t *testing.T) {
	needRoot(t)
	spec, err := bpf.LoadXDP()
	must(t, "open", err)
	must(t, "adapt", adaptPrograms(spec))
	f, err := Probe(Wants{Sockets: true})
	must(t, "probe", err)
	if got := spec.Programs[programXDP].Flags&unix.BPF_F_XDP_HAS_FRAGS != 0; got != f.XDPFrags {
		t.Errorf("frags flag %t on a kernel with frags %t", got, f.XDPFrags)
	}
}

func TestRealProgramsAttach(t *testing.T) {
	for name, noTCX := range map[string]bool{"tcx": false, "clsact": true} {
		t.Run(name, func(t *testing.T) {
			set := newSet(t)
			p, err := Load(validConfig(), set)
			must(t, "load", err)
			defer p.Close()
			newNetns(t)
			up := addVeth(t, "up0")
			a := NewAttacher(p, LinksDir(newBPFFS(t)), XDPNative, discard())
			a.noTCX = noTCX
			t.Cleanup(func() { a.Close() })
			must(t, "sync", a.Sync([]string{"up0"}))
			must(t, "verify", a.Verify())
			must(t, "sync devices", SyncDevices(set.Devices(), a.Status(), DevicesBeside{}))
			got, err := set.Devices().All()
			must(t, "read devices", err)
			want := map[uint32]maps.Device{uint32(up.Attrs().Index): {XDPTx: true, Away: true}}
			if diff := cmp.Diff(want, got, comparableAddr); diff != "" {
				t.Errorf("devices (-want +got):\n%s", diff)
			}
			must(t, "detach", a.DetachAll())
		})
	}
}
