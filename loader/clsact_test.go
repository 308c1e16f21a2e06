package loader

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
)

// newClsactAttacher returns an Attacher as on a kernel without tcx.
func newClsactAttacher(t testing.TB, dir string) *Attacher {
	t.Helper()
	a := newAttacher(t, dir, XDPOff)
	a.noTCX = true
	return a
}

// filterIDs returns the programs of the bpf filters at a hook, in order.
func filterIDs(t testing.TB, dev netlink.Link, hook maps.Hook) []uint32 {
	t.Helper()
	filters, err := listFilters(dev.Attrs().Index, hook)
	must(t, "list filters", err)
	var ids []uint32
	for _, f := range filters {
		if b, ok := f.(*netlink.BpfFilter); ok {
			ids = append(ids, uint32(b.Id))
		}
	}
	return ids
}

// hasClsact asks the kernel.
func hasClsact(t testing.TB, dev netlink.Link) bool {
	t.Helper()
	devices, err := clsactDevices()
	must(t, "list qdiscs", err)
	return devices[dev.Attrs().Index]
}

// addForeignFilter adds a bpf filter of somebody else at ingress.
func addForeignFilter(t testing.TB, dev netlink.Link, priority uint16, handle uint32) uint32 {
	t.Helper()
	p := tinyProgram(t, ebpf.SchedCLS)
	f := newFilter(dev.Attrs().Index, maps.HookTCIngress, p.FD())
	f.Name, f.Priority, f.Handle = "somebody", priority, handle
	must(t, "add foreign filter", netlink.FilterAdd(f))
	id, err := programID(p)
	must(t, "program id", err)
	return uint32(id)
}

func TestWithoutTCXFiltersAreUsed(t *testing.T) {
	newNetns(t)
	up := addVeth(t, "up0")
	a := newClsactAttacher(t, LinksDir(newBPFFS(t)))
	must(t, "sync", a.Sync([]string{"up0"}))
	must(t, "sync again", a.Sync([]string{"up0"}))
	must(t, "verify", a.Verify())
	ids := programIDs(t, a.programs)
	for _, hook := range []maps.Hook{maps.HookTCIngress, maps.HookTCEgress} {
		if diff := cmp.Diff([]uint32{ids[hook]}, filterIDs(t, up, hook)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", hook, diff)
		}
		if tcMode(t) == modeTCX {
			if got := tcxPrograms(t, up, hook); len(got) != 0 {
				t.Errorf("%s also runs tcx programs %v", hook, got)
			}
		}
		found, err := findFilter(up.Attrs().Index, hook)
		must(t, "find filter", err)
		if !found.DirectAction || found.Protocol != unix.ETH_P_ALL {
			t.Errorf("%s filter is %+v, want direct action for all protocols", hook, found)
		}
	}
	must(t, "detach", a.DetachAll())
	if hasClsact(t, up) {
		t.Error("the clsact qdisc stayed though nobody uses it")
	}
}

func TestRestartReplacesFilters(t *testing.T) {
	newNetns(t)
	dir := LinksDir(newBPFFS(t))
	up, other := addVeth(t, "up0"), addVeth(t, "up1")
	before := newClsactAttacher(t, dir)
	must(t, "sync", before.Sync([]string{"up0", "up1"}))
	must(t, "close", before.Close())

	after := newClsactAttacher(t, dir)
	must(t, "sync", after.Sync([]string{"up0"}))
	must(t, "verify", after.Verify())
	ids := programIDs(t, after.programs)
	if diff := cmp.Diff([]uint32{ids[maps.HookTCIngress]}, filterIDs(t, up, maps.HookTCIngress)); diff != "" {
		t.Errorf("up0 ingress (-want +got):\n%s", diff)
	}
	if hasClsact(t, other) {
		t.Error("up1 is no uplink any more but kept its qdisc")
	}
}

func TestFiltersOfAnotherAgentAreCleanedWithoutPrograms(t *testing.T) {
	newNetns(t)
	dir := LinksDir(newBPFFS(t))
	up := addVeth(t, "up0")
	must(t, "sync", newClsactAttacher(t, dir).Sync([]string{"up0"}))
	must(t, "detach", NewAttacher(nil, dir, XDPAuto, discard()).DetachAll())
	if hasClsact(t, up) {
		t.Error("the clsact qdisc stayed")
	}
}

func TestForeignFiltersSurvive(t *testing.T) {
	newNetns(t)
	up := addVeth(t, "up0")
	must(t, "add clsact", netlink.QdiscAdd(newClsact(up.Attrs().Index)))
	foreign := addForeignFilter(t, up, 2, 1)
	a := newClsactAttacher(t, LinksDir(newBPFFS(t)))
	must(t, "sync", a.Sync([]string{"up0"}))
	ids := programIDs(t, a.programs)
	if diff := cmp.Diff([]uint32{ids[maps.HookTCIngress], foreign}, filterIDs(t, up, maps.HookTCIngress)); diff != "" {
		t.Errorf("ebb is not first (-want +got):\n%s", diff)
	}
	must(t, "detach", a.DetachAll())
	if diff := cmp.Diff([]uint32{foreign}, filterIDs(t, up, maps.HookTCIngress)); diff != "" {
		t.Errorf("after detaching (-want +got):\n%s", diff)
	}
}

func TestForeignFilterInOurPlaceIsAnErrorAndStays(t *testing.T) {
	newNetns(t)
	up := addVeth(t, "up0")
	must(t, "add clsact", netlink.QdiscAdd(newClsact(up.Attrs().Index)))
	foreign := addForeignFilter(t, up, ingressPriority, filterHandle)
	a := newClsactAttacher(t, LinksDir(newBPFFS(t)))
	err := a.Sync([]string{"up0"})
	if got := errString(err); !strings.Contains(got, "somebody else") {
		t.Errorf("sync: %v, want an error about somebody else's filter", err)
	}
	if a.Verify() == nil {
		t.Error("verify: no error although ingress is not attached")
	}
	must(t, "detach", a.DetachAll())
	if diff := cmp.Diff([]uint32{foreign}, filterIDs(t, up, maps.HookTCIngress)); diff != "" {
		t.Errorf("foreign filter (-want +got):\n%s", diff)
	}
}

func TestIngressQdiscInPlaceOfClsactIsAnError(t *testing.T) {
	newNetns(t)
	up := addVeth(t, "up0")
	must(t, "add ingress qdisc", netlink.QdiscAdd(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: up.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS,
	}}))
	err := newClsactAttacher(t, LinksDir(newBPFFS(t))).Sync([]string{"up0"})
	if got := errString(err); !strings.Contains(got, "an ingress qdisc is in its place") {
		t.Errorf("sync: %v", err)
	}
}

func TestVerifyNamesAFilterThatOthersRemoved(t *testing.T) {
	newNetns(t)
	up := addVeth(t, "up0")
	a := newClsactAttacher(t, LinksDir(newBPFFS(t)))
	must(t, "sync", a.Sync([]string{"up0"}))
	must(t, "delete qdisc", netlink.QdiscDel(newClsact(up.Attrs().Index)))
	if got := errString(a.Verify()); !strings.Contains(got, "verify tc-egress on up0: no longer attached") {
		t.Errorf("verify: %s", got)
	}
	must(t, "sync", a.Sync([]string{"up0"}))
	must(t, "verify after repair", a.Verify())
}

func TestFilterGoesWithItsDevice(t *testing.T) {
	newNetns(t)
	addVeth(t, "up0")
	a := newClsactAttacher(t, LinksDir(newBPFFS(t)))
	must(t, "sync", a.Sync([]string{"up0"}))
	delDevice(t, "up0")
	must(t, "sync without device", a.Sync([]string{"up0"}))
	if got := a.Status(); len(got) != 0 {
		t.Errorf("status: %v", got)
	}
}
