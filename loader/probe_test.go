package loader

import (
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
)

func TestProbeAcceptsThisKernel(t *testing.T) {
	newNetns(t)
	f, err := Probe(Wants{Sockets: true})
	must(t, "probe", err)
	dir := LinksDir(newBPFFS(t))
	addVeth(t, "up0")
	a := newAttacher(t, dir, XDPOff)
	must(t, "sync", a.Sync([]string{"up0"}))
	if got := hooks(a, "up0")["tc-ingress"] == modeTCX; got != f.TCX {
		t.Errorf("probe says tcx %t, attaching says %t", f.TCX, got)
	}
}

func TestEverythingMissingIsNamedOnce(t *testing.T) {
	no := func() error { return ebpf.ErrNotSupported }
	err := check([]requirement{
		{"flying", "7.0", no},
		{"walking", "2.6", func() error { return nil }},
		{"teleport", "8.1", no},
	})
	want := "ebb needs Linux 6.1 or later; this kernel lacks flying (Linux 7.0), teleport (Linux 8.1): not supported"
	if got := errString(err); got != want || !errors.Is(err, ebpf.ErrNotSupported) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestProbeThatFailsIsNotAMissingFeature(t *testing.T) {
	boom := errors.New("boom")
	err := check([]requirement{{"walking", "2.6", func() error { return boom }}})
	if !errors.Is(err, boom) || errors.Is(err, ebpf.ErrNotSupported) || !strings.HasPrefix(err.Error(), "walking: ") {
		t.Errorf("got %v", err)
	}
}

func TestWarningsSayWhatIsSlowOrAbsent(t *testing.T) {
	all := Features{TCX: true, XDPFrags: true, JIT: true}
	if got := all.Warnings(); len(got) != 0 {
		t.Errorf("everything there: %q", got)
	}
	var count []int
	for _, f := range []Features{{XDPFrags: true}, {JIT: true}, {}} {
		count = append(count, len(f.Warnings()))
	}
	if diff := cmp.Diff([]int{1, 1, 2}, count); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestSurveyAgreesWithProbe(t *testing.T) {
	needRoot(t)
	for _, w := range []Wants{{}, {Sockets: true}} {
		want, err := Probe(w)
		must(t, "probe", err)
		survey, err := Survey(w)
		must(t, "survey", err)
		optional := make(map[string]bool)
		for _, f := range survey {
			if f.Required() && !f.Present {
				t.Errorf("%s is required and missing, yet Probe accepts this kernel", f.Name)
			}
			if !f.Required() {
				optional[f.Name] = f.Present
			}
		}
		got := Features{TCX: optional["tcx links"], XDPFrags: optional["XDP with fragments"], MPTCP: optional["MPTCP"], JIT: optional["BPF JIT compiler"]}
		if got != want {
			t.Errorf("%+v: survey says %+v, probe %+v", w, got, want)
		}
		for _, r := range socketRequirements() {
			if _, without := optional[r.name]; without == w.Sockets {
				t.Errorf("%+v: ebb does without %s: %t", w, r.name, without)
			}
		}
	}
}
