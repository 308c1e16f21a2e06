package podlinks

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/ebb-lb/ebb/tests/lab"
)

// networks are the kinds of networks that pods are in.
func networks() map[string]lab.Config {
	return map[string]lab.Config{
		"routed":  {},
		"bridged": {BridgedPods: true},
		"overlay": {BridgedPods: true, Overlay: true},
	}
}

// inEach runs a test in a world of each kind.
func inEach(t *testing.T, test func(*world)) {
	for name, cfg := range networks() {
		t.Run(name, func(t *testing.T) { test(newWorld(t, cfg)) })
	}
}

func addrOf(p *lab.Pod, like netip.Addr) netip.Addr {
	if like.Is4() {
		return p.Addr4
	}
	return p.Addr6
}

func TestAPodReachesBackendsHereThereAndItself(t *testing.T) {
	inEach(t, func(w *world) {
		for _, tc := range []struct {
			service
			backend *lab.Pod
		}{{w.same, w.near}, {w.away, w.far}, {w.self, w.asker}, {w.local, w.far}} {
			for _, addr := range tc.addrs() {
				w.Run(fmt.Sprintf("%s/%s", tc.name, addr), func(t *testing.T) {
					sub := *w
					sub.T = t
					seen := addrOf(w.asker, addr)
					if tc.backend == w.asker {
						seen = addr
					}
					sub.wantAnswers(addr, tc.backend, seen)
				})
			}
		}
	})
}

// wantAnswers asks at addr from the pod that asks; backend is who must answer,
// and seen where it must see who asks.
func (w *world) wantAnswers(addr netip.Addr, backend *lab.Pod, seen netip.Addr) {
	w.Helper()
	if got, err := w.askPeer(w.asker.NS, addr); err != nil || got != seen {
		w.Errorf("the backend sees %v (%v), want %v", got, err, seen)
	}
	const megabytes = 4 << 20
	if err := w.askStream(w.asker.NS, addr, megabytes); err != nil {
		w.Errorf("transfer: %v", err)
	}
	if got, err := w.askUDP(w.asker.NS, addr, 6); err != nil || got != backend.Name() {
		w.Errorf("UDP is answered by %q (%v), want %s", got, err, backend.Name())
	}
}

// attached counts the programs on the node's end of a pod's link.
func (w *world) attached(p *lab.Pod) int {
	w.Helper()
	n := 0
	err := p.Node.Do(func() error {
		dev, err := netlink.LinkByName(p.HostDev)
		if err != nil {
			return err
		}
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			res, err := link.QueryPrograms(link.QueryOptions{Target: dev.Attrs().Index, Attach: at})
			if err != nil {
				return err
			}
			n += len(res.Programs)
		}
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	return n
}

func TestCleanupLeavesNothingOnPodsLinks(t *testing.T) {
	w := newWorld(t, lab.Config{})
	for _, p := range []*lab.Pod{w.near, w.asker} {
		if n := w.attached(p); n != 2 {
			t.Errorf("%s: %d programs, want 2", p.Name(), n)
		}
	}
	if err := w.agents[w.here].Kill(); err != nil {
		t.Fatal(err)
	}
	cleanup := w.start(w.here.NS, "cleanup", "--bpffs", bpffs, "--state-dir", w.manifests)
	<-cleanup.Done()
	if cleanup.Err() != nil {
		t.Errorf("cleanup: %v\n%s", cleanup.Err(), cleanup.out)
	}
	for _, p := range []*lab.Pod{w.near, w.asker} {
		if n := w.attached(p); n != 0 {
			t.Errorf("%s: %d programs are left", p.Name(), n)
		}
	}
}
