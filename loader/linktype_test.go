package loader

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
)

// unknownType makes a device one whose packets no program knows.
func unknownType(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETLINK, unix.ARPHRD_INFINIBAND) }

func TestDevicesWithoutEthernetGetProgramsOfTheirOwnAndNoXDP(t *testing.T) {
	for _, mode := range []XDPMode{XDPAuto, XDPNative, XDPGeneric, XDPOff} {
		t.Run(mode.String(), func(t *testing.T) {
			newNetns(t)
			dir := LinksDir(newBPFFS(t))
			tun, up := addTun(t, "tun0", nil), addVeth(t, "up0")
			a := newAttacher(t, dir, mode)
			must(t, "sync", a.Sync([]string{"tun0", "up0"}))
			must(t, "verify", a.Verify())
			if diff := cmp.Diff(map[string]string{"tc-ingress": tcMode(t), "tc-egress": tcMode(t)}, hooks(a, "tun0")); diff != "" {
				t.Errorf("tun0 (-want +got):\n%s", diff)
			}
			for _, hook := range []maps.Hook{maps.HookTCIngress, maps.HookTCEgress} {
				p, err := a.programs.For(hook, false)
				must(t, "program", err)
				want, err := programID(p)
				must(t, "id", err)
				if got := tcPrograms(t, tun, hook); !cmp.Equal(got, []uint32{uint32(want)}) {
					t.Errorf("tun0 %s runs %v, want %d", hook, got, want)
				}
				if got := tcPrograms(t, up, hook); cmp.Equal(got, []uint32{uint32(want)}) {
					t.Errorf("up0 %s runs the program for packets without Ethernet", hook)
				}
			}
		})
	}
}

func TestALinkTypeNobodyKnowsIsNamedOnceAndOthersAreServed(t *testing.T) {
	for name, required := range map[string]bool{"required": true, "found": false} {
		t.Run(name, func(t *testing.T) {
			newNetns(t)
			addTun(t, "ib0", unknownType)
			addVeth(t, "up0")
			var logs bytes.Buffer
			a := newAttacher(t, LinksDir(newBPFFS(t)), XDPAuto)
			a.log = slog.New(slog.NewTextHandler(&logs, nil))
			for range 2 {
				err := a.SyncUplinks([]Uplink{{Name: "ib0", Required: required}, {Name: "up0", Required: true}})
				if (err != nil) != required {
					t.Errorf("sync: %v", err)
				}
			}
			if why := a.Unserved()["ib0"]; !strings.Contains(why, "link type infiniband") || len(a.Unserved()) != 1 {
				t.Errorf("not served: %q", a.Unserved())
			}
			if n := strings.Count(logs.String(), "level=WARN"); n != 1 {
				t.Errorf("%d warnings, want 1:\n%s", n, &logs)
			}
			if len(hooks(a, "up0")) != 2 {
				t.Errorf("up0 has %v", hooks(a, "up0"))
			}
			delDevice(t, "ib0")
			must(t, "sync without it", a.SyncUplinks([]Uplink{{Name: "ib0"}, {Name: "up0", Required: true}}))
			if len(a.Unserved()) != 0 {
				t.Errorf("not served: %q", a.Unserved())
			}
		})
	}
}

// XDP that is asked for is meant for the NICs one knows of, not for a bridge of
// virtual machines.
func TestADeviceThatWasFoundNeedNotHaveNativeXDP(t *testing.T) {
	newNetns(t)
	addBridge(t, "virbr0")
	addVeth(t, "up0")
	a := newAttacher(t, LinksDir(newBPFFS(t)), XDPNative)
	for range 2 {
		must(t, "sync", a.SyncUplinks([]Uplink{{Name: "virbr0"}, {Name: "up0", Required: true}}))
		must(t, "verify", a.Verify())
	}
	want := map[string]string{"tc-ingress": tcMode(t), "tc-egress": tcMode(t)}
	if diff := cmp.Diff(want, hooks(a, "virbr0")); diff != "" || len(a.Unserved()) != 0 {
		t.Errorf("virbr0 (-want +got):\n%s\nnot served: %q", diff, a.Unserved())
	}
	if hooks(a, "up0")["xdp"] != "native" {
		t.Errorf("up0 has %v", hooks(a, "up0"))
	}
}
