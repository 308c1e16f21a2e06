package topology

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/ebb-lb/ebb/tests/lab"
)

// attached returns what is attached to the uplink of the entry node.
func (w *world) attached() string {
	w.Helper()
	var state string
	err := w.entry.Do(func() error {
		dev, err := netlink.LinkByName(lab.Uplink)
		if err != nil {
			return err
		}
		attrs := dev.Attrs()
		xdp := attrs.Xdp != nil && attrs.Xdp.Attached
		var tc []int
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			res, err := link.QueryPrograms(link.QueryOptions{Target: attrs.Index, Attach: at})
			if err != nil {
				return err
			}
			tc = append(tc, len(res.Programs))
		}
		state = fmt.Sprintf("xdp %v, tc %v", xdp, tc)
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	return state
}

const (
	allAttached     = "xdp true, tc [1 1]"
	nothingAttached = "xdp false, tc [0 0]"
)

// ask sends one request to each address of the service.
func (w *world) ask() error {
	vip4, vip6 := lab.DefaultVIPs()
	var errs []error
	for _, vip := range []netip.Addr{vip4, vip6} {
		body, err := get(w.Context(), w.lab.Client, "http://"+netip.AddrPortFrom(vip, httpPort).String()+"/echo/hello")
		if err == nil && body != "hello" {
			err = fmt.Errorf("answer %q", body)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (w *world) wantServed(when string) {
	w.Helper()
	if err := w.ask(); err != nil {
		w.Errorf("%s: %v", when, err)
	}
	if got := w.attached(); got != allAttached {
		w.Errorf("%s: attached %s, want %s", when, got, allAttached)
	}
}

func TestWhatAnAgentLeavesAndACleanupRemoves(t *testing.T) {
	w := newWorld(t)
	agent := w.startReadyAgent()
	w.wantServed("with an agent")
	before := w.snapshot()

	if err := agent.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := agent.wait(); code != 0 {
		t.Errorf("exit code %d after SIGTERM\n%s", code, agent.out)
	}
	w.wantServed("after SIGTERM")
	w.wantSame("after SIGTERM", before, w.snapshot())

	for _, again := range []string{"once", "twice"} {
		cleanup := w.run("cleanup", "--bpffs", bpffs, "--state-dir", w.state)
		if code := cleanup.wait(); code != 0 {
			t.Errorf("cleanup %s: exit code %d\n%s", again, code, cleanup.out)
		}
		if got := w.attached(); got != nothingAttached {
			t.Errorf("cleanup %s leaves attached: %s", again, got)
		}
		w.wantNoPins()
	}
	w.startReadyAgent()
	w.wantServed("after a new beginning")
}

func (w *world) wantNoPins() {
	w.Helper()
	err := w.entry.Do(func() error {
		entries, err := os.ReadDir(bpffs)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil && len(entries) > 0 {
			err = fmt.Errorf("%s holds %v", bpffs, entries)
		}
		return err
	})
	if err != nil {
		w.Error(err)
	}
}

// Two owners of the same pins would undo each other's work.
func TestOnlyOneAgentOwnsThePins(t *testing.T) {
	w := newWorld(t)
	agent := w.startReadyAgent()
	before := w.snapshot()
	for name, second := range map[string]struct {
		*process
		about string
	}{
		"a second agent":            {w.startAgentWith("--state-dir", t.TempDir()), bpffs},
		"one with other pins":       {w.startAgentWith("--bpffs", bpffs+"-2"), w.state},
		"a cleanup beside an agent": {w.run("cleanup", "--bpffs", bpffs, "--state-dir", w.state), bpffs},
	} {
		code := second.wait()
		if out := second.out.String(); code != 1 || !strings.Contains(out, second.about) || !strings.Contains(out, "another agent owns it") {
			t.Errorf("%s: exit code %d, want 1 and to be told why:\n%s", name, code, out)
		}
	}
	w.wantServed("after the refusals")
	w.wantSame("after the refusals", before, w.snapshot())
	if err := w.healthy(); err != nil || agent.Err() != nil {
		t.Errorf("the first agent: %v, %v\n%s", err, agent.Err(), agent.out)
	}
	// The kernel gives the lock back however its owner ends.
	agent.kill()
	w.startReadyAgent()
}
