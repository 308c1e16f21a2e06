package loader

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"

	"github.com/ebb-lb/ebb/maps"
)

func TestSyncAttachesEveryHookAndPinsIt(t *testing.T) {
	newNetns(t)
	dir := LinksDir(newBPFFS(t))
	up := addVeth(t, "up0.100") // a bpf filesystem takes no dots
	a := newAttacher(t, dir, XDPNative)
	must(t, "sync", a.Sync([]string{"up0.100"}))

	ids, index := programIDs(t, a.programs), up.Attrs().Index
	want := []Attachment{
		{"up0.100", index, maps.HookXDP, "native", ids[maps.HookXDP]},
		{"up0.100", index, maps.HookTCIngress, tcMode(t), ids[maps.HookTCIngress]},
		{"up0.100", index, maps.HookTCEgress, tcMode(t), ids[maps.HookTCEgress]},
	}
	if diff := cmp.Diff(want, a.Status()); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if got := tcPrograms(t, up, maps.HookTCIngress); !cmp.Equal(got, []uint32{ids[maps.HookTCIngress]}) {
		t.Errorf("ingress runs %v, want %v", got, ids)
	}
	if got := tcPrograms(t, up, maps.HookTCEgress); !cmp.Equal(got, []uint32{ids[maps.HookTCEgress]}) {
		t.Errorf("egress runs %v, want %v", got, ids)
	}
	if id, mode := xdpProgram(t, "up0.100"); id != ids[maps.HookXDP] || mode != nl.XDP_ATTACHED_DRV {
		t.Errorf("xdp runs %d in mode %d, want %v", id, mode, ids)
	}
	pins := pinnedLinks(t, dir)
	for _, name := range uplinkPins(t, "up0:100") {
		if pins[name] == 0 {
			t.Errorf("no pin %s in %v", name, pins)
		}
	}
	must(t, "verify", a.Verify())
}

func TestSyncAgainChangesNothing(t *testing.T) {
	newNetns(t)
	dir := LinksDir(newBPFFS(t))
	addVeth(t, "up0")
	a := newAttacher(t, dir, XDPNative)
	must(t, "sync", a.Sync([]string{"up0"}))
	pins, status := pinnedLinks(t, dir), a.Status()
	must(t, "sync again", a.Sync([]string{"up0", "up0"}))
	if diff := cmp.Diff(pins, pinnedLinks(t, dir)); diff != "" {
		t.Errorf("links (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(status, a.Status()); diff != "" {
		t.Errorf("status (-before +after):\n%s", diff)
	}
}

func TestRestartReplacesProgramsAndKeepsLinks(t *testing.T) {
	newNetns(t)
	dir := LinksDir(newBPFFS(t))
	up := addVeth(t, "up0")
	before := newAttacher(t, dir, XDPNative)
	must(t, "sync", before.Sync([]string{"up0"}))
	pins := pinnedLinks(t, dir)
	must(t, "close", before.Close())
	must(t, "close programs", before.programs.Close())
	if got := tcPrograms(t, up, maps.HookTCIngress); len(got) != 1 {
		t.Fatalf("ingress runs %v while no agent is there", got)
	}

	after := newAttacher(t, dir, XDPNative)
	must(t, "sync after restart", after.Sync([]string{"up0"}))
	if diff := cmp.Diff(pins, pinnedLinks(t, dir)); diff != "" {
		t.Errorf("links (-before +after):\n%s", diff)
	}
	ids := programIDs(t, after.programs)
	for _, hook := range []maps.Hook{maps.HookTCIngress, maps.HookTCEgress} {
		if got := tcPrograms(t, up, hook); !cmp.Equal(got, []uint32{ids[hook]}) {
			t.Errorf("%s runs %v, want the new program %d", hook, got, ids[hook])
		}
	}
	if id, _ := xdpProgram(t, "up0"); id != ids[maps.HookXDP] {
		t.Errorf("xdp runs %d, want the new program %d", id, ids[maps.HookXDP])
	}
	must(t, "verify", after.Verify())
}

func TestDeviceNoLongerUplinkIsLeftClean(t *testing.T) {
	newNetns(t)
	dir := LinksDir(newBPFFS(t))
	up, other := addVeth(t, "up0"), addVeth(t, "up1")
	before := newAttacher(t, dir, XDPNative)
	must(t, "sync", before.Sync([]string{"up0", "up1"}))
	must(t, "close", before.Close())

	after := newAttacher(t, dir, XDPNative)
	must(t, "sync", after.Sync([]string{"up1"}))
	if got := tcPrograms(t, up, maps.HookTCIngress); len(got) != 0 {
		t.Errorf("up0 ingress still runs %v", got)
	}
	if id, _ := xdpProgram(t, "up0"); id != 0 {
		t.Errorf("up0 xdp still runs %d", id)
	}
	if got := tcPrograms(t, other, maps.HookTCIngress); len(got) != 1 {
		t.Errorf("up1 ingress runs %v, want one program", got)
	}
	if pins := pinnedLinks(t, dir); len(pins) != len(uplinkPins(t, "up1")) {
		t.Errorf("pins are %v, want those of up1", pins)
	}
}

func TestRecreatedDeviceIsServedAgain(t *testing.T) {
	for name, restart := range map[string]bool{
		"while the agent runs": false,
		"while no agent runs":  true,
	} {
		t.Run(name, func(t *testing.T) {
			newNetns(t)
			dir := LinksDir(newBPFFS(t))
			addVeth(t, "up0")
			a := newAttacher(t, dir, XDPNative)
			must(t, "sync", a.Sync([]string{"up0"}))
			if restart {
				must(t, "close", a.Close())
				a = newAttacher(t, dir, XDPNative)
			}
			delDevice(t, "up0")
			up := addVeth(t, "up0")
			must(t, "sync", a.Sync([]string{"up0"}))
			must(t, "verify", a.Verify())
			for _, at := range a.Status() {
				if at.Ifindex != up.Attrs().Index {
					t.Errorf("%v is on ifindex %d, want %d", at, at.Ifindex, up.Attrs().Index)
				}
			}
			if got := tcPrograms(t, up, maps.HookTCEgress); len(got) != 1 {
				t.Errorf("egress runs %v, want one program", got)
			}
			if pins := pinnedLinks(t, dir); len(pins) != len(uplinkPins(t, "up0")) {
				t.Errorf("pins are %v, want %v", pins, uplinkPins(t, "up0"))
			}
		})
	}
}

func TestDeviceThatComesLateIsWarnedAboutOnceAndServedThen(t *testing.T) {
	newNetns(t)
	dir := LinksDir(newBPFFS(t))
	addVeth(t, "up0")
	var logs bytes.Buffer
	a := newAttacher(t, dir, XDPOff)
	a.log = slog.New(slog.NewTextHandler(&logs, nil))
	for range 2 {
		must(t, "sync without up1", a.Sync([]string{"up0", "up1"}))
	}
	if n := strings.Count(logs.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings, want 1:\n%s", n, logs.String())
	}
	if n := len(a.Status()); n != 2 {
		t.Errorf("%d attachments, want those of up0: %v", n, a.Status())
	}
	up := addVeth(t, "up1")
	must(t, "sync with up1", a.Sync([]string{"up0", "up1"}))
	if got := tcPrograms(t, up, maps.HookTCIngress); len(got) != 1 {
		t.Errorf("up1 ingress runs %v, want one program", got)
	}
}

func TestRenamedDevicesKeepTheirLinks(t *testing.T) {
	newNetns(t)
	dir := LinksDir(newBPFFS(t))
	addVeth(t, "up0")
	addVeth(t, "up1")
	a := newAttacher(t, dir, XDPNative)
	must(t, "sync", a.Sync([]string{"up0", "up1"}))
	before := pinnedLinks(t, dir)
	rename(t, "up0", "tmp")
	rename(t, "up1", "up0")
	rename(t, "tmp", "up1")
	must(t, "sync", a.Sync([]string{"up0", "up1"}))
	want := make(map[string]link.ID)
	swap := strings.NewReplacer("up0", "up1", "up1", "up0")
	for name, id := range before {
		want[swap.Replace(name)] = id
	}
	if diff := cmp.Diff(want, pinnedLinks(t, dir)); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	must(t, "verify", a.Verify())
}

func TestForeignTCXProgramsSurviveAndKeepTheirPlace(t *testing.T) {
	newNetns(t)
	needTCX(t)
	dir := LinksDir(newBPFFS(t))
	up := addVeth(t, "up0")
	foreign := tinyProgram(t, ebpf.SchedCLS)
	for _, hook := range []maps.Hook{maps.HookTCIngress, maps.HookTCEgress} {
		l, err := link.AttachTCX(link.TCXOptions{Interface: up.Attrs().Index, Program: foreign, Attach: tcxAttachType(hook)})
		must(t, "attach foreign", err)
		t.Cleanup(func() { l.Close() })
	}
	foreignID, err := programID(foreign)
	must(t, "program id", err)

	a := newAttacher(t, dir, XDPOff)
	must(t, "sync", a.Sync([]string{"up0"}))
	ids := programIDs(t, a.programs)
	if diff := cmp.Diff([]uint32{ids[maps.HookTCIngress], uint32(foreignID)}, tcxPrograms(t, up, maps.HookTCIngress)); diff != "" {
		t.Errorf("ebb is not first at ingress (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]uint32{uint32(foreignID), ids[maps.HookTCEgress]}, tcxPrograms(t, up, maps.HookTCEgress)); diff != "" {
		t.Errorf("ebb is not last at egress (-want +got):\n%s", diff)
	}
	must(t, "detach", a.DetachAll())
	for _, hook := range []maps.Hook{maps.HookTCIngress, maps.HookTCEgress} {
		if diff := cmp.Diff([]uint32{uint32(foreignID)}, tcxPrograms(t, up, hook)); diff != "" {
			t.Errorf("%s after detaching (-want +got):\n%s", hook, diff)
		}
	}
}

// detachPinned detaches a link, as an administrator would.
func detachPinned(t testing.TB, pin string) {
	t.Helper()
	l, err := link.LoadPinnedLink(pin, nil)
	must(t, "load pin", err)
	must(t, "detach", l.Detach())
	must(t, "close", l.Close())
}

func TestVerifyNamesWhatOthersDetachedAndSyncRepairsIt(t *testing.T) {
	newNetns(t)
	dir := LinksDir(newBPFFS(t))
	up := addVeth(t, "up0")
	a := newAttacher(t, dir, XDPNative)
	must(t, "sync", a.Sync([]string{"up0"}))
	detachPinned(t, filepath.Join(dir, "xdp-up0"))
	if tcMode(t) == modeTCX {
		detachPinned(t, filepath.Join(dir, "tcx-ingress-up0"))
	} else {
		must(t, "delete filter", netlink.FilterDel(newFilter(up.Attrs().Index, maps.HookTCIngress, -1)))
	}
	err := a.Verify()
	if err == nil {
		t.Fatal("verify: no error after others detached two hooks")
	}
	for _, want := range []string{"verify tc-ingress on up0: no longer attached", "verify xdp on up0: no longer attached"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("verify: %v, want %q", err, want)
		}
	}
	must(t, "sync", a.Sync([]string{"up0"}))
	must(t, "verify after repair", a.Verify())
}

func TestDetachAllNeedsNoProgramsAndLeavesNothing(t *testing.T) {
	newNetns(t)
	dir := LinksDir(newBPFFS(t))
	up := addVeth(t, "up0")
	a := newAttacher(t, dir, XDPGeneric)
	must(t, "sync", a.Sync([]string{"up0"}))
	must(t, "close", a.Close())

	cleaner := NewAttacher(nil, dir, XDPAuto, discard())
	must(t, "detach", cleaner.DetachAll())
	if got := cleaner.Status(); len(got) != 0 {
		t.Errorf("status after detaching: %v", got)
	}
	for _, hook := range []maps.Hook{maps.HookTCIngress, maps.HookTCEgress} {
		if got := tcPrograms(t, up, hook); len(got) != 0 {
			t.Errorf("%s still runs %v", hook, got)
		}
	}
	if id, _ := xdpProgram(t, "up0"); id != 0 {
		t.Errorf("xdp still runs %d", id)
	}
	if pins := pinnedLinks(t, dir); len(pins) != 0 {
		t.Errorf("pins left: %v", pins)
	}
}

func TestPinsOfOthersAreIgnored(t *testing.T) {
	newNetns(t)
	dir := LinksDir(newBPFFS(t))
	must(t, "mkdir", os.MkdirAll(filepath.Join(dir, "somebody"), 0o700))
	addVeth(t, "up0")
	a := newAttacher(t, dir, XDPOff)
	must(t, "sync", a.Sync([]string{"up0"}))
	must(t, "detach", a.DetachAll())
	if _, err := os.Stat(filepath.Join(dir, "somebody")); err != nil {
		t.Errorf("the pin of somebody else is gone: %v", err)
	}
}

func TestFailedTakeOverDetachesNothingAndIsRepeated(t *testing.T) {
	newNetns(t)
	set := newSet(t)
	dir := LinksDir(newBPFFS(t))
	up := addVeth(t, "up0")
	before := newAttacher(t, dir, XDPOff)
	must(t, "sync", before.Sync([]string{"up0"}))
	pins := pinnedLinks(t, dir)
	must(t, "close", before.Close())
	must(t, "mkdir", os.MkdirAll(dir, 0o700))
	wrong := filepath.Join(dir, "xdp-up9") // no link, read after the links of up0
	must(t, "pin a map", set.Replacements()["devices"].Pin(wrong))

	after := newAttacher(t, dir, XDPOff)
	for range 2 {
		if got := errString(after.Sync([]string{"up0"})); !strings.Contains(got, "take over pinned links: xdp-up9: ") {
			t.Errorf("sync: %q, want an error about the pin", got)
		}
		if got := tcPrograms(t, up, maps.HookTCIngress); len(got) != 1 {
			t.Fatalf("ingress runs %v, want what ran before", got)
		}
	}
	must(t, "remove", os.Remove(wrong))
	must(t, "sync", after.Sync([]string{"up0"}))
	if diff := cmp.Diff(pins, pinnedLinks(t, dir)); diff != "" {
		t.Errorf("links (-before +after):\n%s", diff)
	}
}
