package lab

import (
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestNodeHasItsOwnSysAndBPFFilesystem(t *testing.T) {
	l := newTestLab(t, Config{})
	a, b := l.Nodes[0], l.Nodes[1]
	if err := a.Do(func() error { return os.Mkdir(BPFFS+"/only-here", 0o700) }); err != nil {
		t.Fatal(err)
	}
	err := b.Do(func() error {
		var st unix.Statfs_t
		if err := unix.Statfs(BPFFS, &st); err != nil {
			return err
		}
		if st.Type != unix.BPF_FS_MAGIC {
			t.Errorf("%s has filesystem type %#x", BPFFS, st.Type)
		}
		if _, err := os.Stat(BPFFS + "/only-here"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("nodes share a BPF filesystem: %v", err)
		}
		_, err := os.Stat("/sys/class/net/" + Uplink)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(BPFFS + "/only-here"); err == nil {
		t.Error("the host sees the BPF filesystem of a node")
	}
}

func TestDoReturnsTheErrorOfTheFunction(t *testing.T) {
	l := newTestLab(t, Config{Nodes: []string{"n"}})
	want := errors.New("some reason")
	if err := l.Client.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
	l.Close()
	if err := l.Client.Do(func() error { return nil }); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after close: got %v", err)
	}
}

func TestFeaturesAreSetOnTheDevice(t *testing.T) {
	read := map[string]uint32{
		"tx checksum": unix.ETHTOOL_GTXCSUM, "scatter-gather": unix.ETHTOOL_GSG,
		"TSO": unix.ETHTOOL_GTSO, "GSO": unix.ETHTOOL_GGSO, "GRO": unix.ETHTOOL_GGRO,
	}
	tests := []struct {
		name     string
		features Features
		want     map[string]uint32
		vlan     uint32
	}{
		{"fit to face native XDP", NativeXDPPeer(),
			map[string]uint32{"tx checksum": 0, "scatter-gather": 0, "TSO": 0, "GSO": 0, "GRO": 1}, 0},
		{"everything on", Features{TxChecksum: On, ScatterGather: On, TSO: On, GSO: On, GRO: On, VLAN: On},
			map[string]uint32{"tx checksum": 1, "scatter-gather": 1, "TSO": 1, "GSO": 1, "GRO": 1}, vlanFlags},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			l := newTestLab(t, Config{Nodes: []string{"n"}, UplinkPeer: tc.features})
			got := map[string]uint32{}
			var vlan uint32
			err := l.Router.Do(func() (err error) {
				for name, cmd := range read {
					if got[name], err = ethtool("port-n", cmd, 0); err != nil {
						return err
					}
				}
				vlan, err = ethtool("port-n", unix.ETHTOOL_GFLAGS, 0)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("features (-want +got):\n%s", d)
			}
			if vlan&vlanFlags != tc.vlan {
				t.Errorf("VLAN flags %#x, want %#x", vlan&vlanFlags, tc.vlan)
			}
		})
	}
}
