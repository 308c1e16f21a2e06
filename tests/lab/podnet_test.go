package lab

import (
	"errors"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestPodsReachEachOtherInEveryKindOfNetwork(t *testing.T) {
	for name, cfg := range map[string]Config{
		"bridged":           {BridgedPods: true},
		"overlay":           {Overlay: true},
		"bridged by tunnel": {BridgedPods: true, Overlay: true},
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("needs root: creates network namespaces")
			}
			l, err := New(t.Context(), cfg)
			if errors.Is(err, unix.EOPNOTSUPP) {
				t.Skipf("missing feature: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
			checkReachability(t, l)
			if cfg.Overlay {
				wantTunnelled(t, l.Nodes[0])
			}
		})
	}
}

// wantTunnelled: what has reached the pods of other nodes went through the tunnel.
func wantTunnelled(t *testing.T, n *Node) {
	t.Helper()
	var sent uint64
	err := n.Do(func() (err error) {
		sent, err = sentBy(PodTunnel)
		return err
	})
	if err != nil || sent == 0 {
		t.Errorf("%d packets went by the tunnel (%v)", sent, err)
	}
}

func sentBy(dev string) (uint64, error) {
	l, err := netlink.LinkByName(dev)
	if err != nil {
		return 0, err
	}
	return l.Attrs().Statistics.TxPackets, nil
}
