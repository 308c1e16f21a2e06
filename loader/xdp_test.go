package loader

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"

	"github.com/ebb-lb/ebb/maps"
)

// hooks returns the modes by hook of what is attached to a device.
func hooks(a *Attacher, name string) map[string]string {
	modes := make(map[string]string)
	for _, at := range a.Status() {
		if at.Device == name {
			modes[at.Hook.String()] = at.Mode
		}
	}
	return modes
}

func TestXDPMode(t *testing.T) {
	veth := func(t *testing.T) { addVeth(t, "up0") }
	bridge := func(t *testing.T) { addBridge(t, "up0") }
	tests := []struct {
		name     string
		mode     XDPMode
		device   func(*testing.T)
		physical bool
		want     string // mode of XDP
		wantErr  string
	}{
		{name: "auto leaves virtual devices to TC", mode: XDPAuto, device: veth},
		{name: "auto takes native XDP on physical devices", mode: XDPAuto, device: veth, physical: true, want: "native"},
		{name: "auto leaves a device to TC if its driver refuses", mode: XDPAuto, device: bridge, physical: true},
		{name: "native takes virtual devices too", mode: XDPNative, device: veth, want: "native"},
		{name: "native fails if the driver refuses, TC serves", mode: XDPNative, device: bridge, wantErr: "attach xdp on up0: "},
		{name: "generic works on every device", mode: XDPGeneric, device: bridge, want: "generic"},
		{name: "off attaches none", mode: XDPOff, device: veth, physical: true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			newNetns(t)
			tc.device(t)
			a := newAttacher(t, LinksDir(newBPFFS(t)), tc.mode)
			a.physical = func(string) bool { return tc.physical }
			err := a.Sync([]string{"up0"})
			if got := errString(err); !strings.Contains(got, tc.wantErr) || (tc.wantErr == "") != (err == nil) {
				t.Errorf("sync: %v, want %q", err, tc.wantErr)
			}
			if verr := a.Verify(); (verr == nil) != (err == nil) {
				t.Errorf("verify: %v, although sync said %v", verr, err)
			}
			want := map[string]string{"tc-ingress": tcMode(t), "tc-egress": tcMode(t)}
			if tc.want != "" {
				want["xdp"] = tc.want
			}
			if diff := cmp.Diff(want, hooks(a, "up0")); diff != "" {
				t.Errorf("attached (-want +got):\n%s", diff)
			}
		})
	}
}

func errString(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestChangeOfXDPMode(t *testing.T) {
	newNetns(t)
	dir := LinksDir(newBPFFS(t))
	addVeth(t, "up0")
	var tc map[string]uint32
	for _, step := range []struct {
		mode XDPMode
		want uint32
	}{
		{XDPNative, nl.XDP_ATTACHED_DRV},
		{XDPGeneric, nl.XDP_ATTACHED_SKB},
		{XDPNative, nl.XDP_ATTACHED_DRV},
		{XDPOff, nl.XDP_ATTACHED_NONE},
		{XDPGeneric, nl.XDP_ATTACHED_SKB},
		{XDPAuto, nl.XDP_ATTACHED_NONE},
	} {
		a := newAttacher(t, dir, step.mode)
		must(t, "sync", a.Sync([]string{"up0"}))
		must(t, "verify", a.Verify())
		if _, mode := xdpProgram(t, "up0"); mode != step.want {
			t.Errorf("%s: netlink says XDP mode %d, want %d", step.mode, mode, step.want)
		}
		pins := pinnedLinks(t, dir)
		if _, ok := pins["xdp-up0"]; ok != (step.want != nl.XDP_ATTACHED_NONE) {
			t.Errorf("%s: pins are %v", step.mode, pins)
		}
		links := map[string]uint32{
			"ingress": uint32(pins["tcx-ingress-up0"]), "egress": uint32(pins["tcx-egress-up0"]),
		}
		if tc != nil && !cmp.Equal(tc, links) {
			t.Errorf("%s: TC links changed from %v to %v", step.mode, tc, links)
		}
		tc = links
		must(t, "close", a.Close())
	}
}

func TestRefusedDeviceDoesNotKeepOthersFromBeingServed(t *testing.T) {
	newNetns(t)
	addBridge(t, "br0")
	addVeth(t, "up0")
	a := newAttacher(t, LinksDir(newBPFFS(t)), XDPNative)
	if err := a.Sync([]string{"br0", "up0"}); err == nil || !strings.Contains(err.Error(), "br0") {
		t.Errorf("sync: %v, want an error about br0", err)
	}
	want := map[string]string{"tc-ingress": tcMode(t), "tc-egress": tcMode(t), "xdp": "native"}
	if diff := cmp.Diff(want, hooks(a, "up0")); diff != "" {
		t.Errorf("up0 (-want +got):\n%s", diff)
	}
}

func TestForeignXDPProgramIsNotReplaced(t *testing.T) {
	newNetns(t)
	up := addVeth(t, "up0")
	foreign := tinyProgram(t, ebpf.XDP)
	must(t, "attach foreign", netlink.LinkSetXdpFdWithFlags(up, foreign.FD(), nl.XDP_FLAGS_DRV_MODE))
	foreignID, err := programID(foreign)
	must(t, "program id", err)

	a := newAttacher(t, LinksDir(newBPFFS(t)), XDPAuto)
	a.physical = func(string) bool { return true }
	must(t, "sync", a.Sync([]string{"up0"}))
	must(t, "detach", a.DetachAll())
	if id, _ := xdpProgram(t, "up0"); id != uint32(foreignID) {
		t.Errorf("xdp runs %d, want the foreign program %d", id, foreignID)
	}
}

func TestXDPProgramThatIsNotLoadedIsAnError(t *testing.T) {
	newNetns(t)
	addVeth(t, "up0")
	a := newAttacher(t, LinksDir(newBPFFS(t)), XDPNative)
	a.programs.XDP = nil
	err := a.Sync([]string{"up0"})
	if got := errString(err); !strings.Contains(got, "attach xdp on up0: the program is not loaded") {
		t.Errorf("sync: %v", err)
	}
	if _, ok := hooks(a, "up0")[maps.HookTCEgress.String()]; !ok {
		t.Error("TC was not attached")
	}
}
