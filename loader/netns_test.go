package loader

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/lab"
)

// needRoot skips tests that no ordinary user can run.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// newNetns puts the test's goroutine into a network namespace of its own. The
// thread is never unlocked, so the runtime discards it, and the namespace, when
// the test ends.
func newNetns(t testing.TB) {
	t.Helper()
	needRoot(t)
	runtime.LockOSThread()
	must(t, "new network namespace", unix.Unshare(unix.CLONE_NEWNET))
}

// newBPFFS returns a bpf filesystem of the test's own.
func newBPFFS(t testing.TB) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	must(t, "mount", unix.Mount("bpf", dir, "bpf", 0, ""))
	t.Cleanup(func() { must(t, "unmount", unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

func must(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// addVeth adds a pair of devices, the second one named name+"p", both up.
func addVeth(t testing.TB, name string) netlink.Link {
	t.Helper()
	must(t, "add veth", netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}))
	setUp(t, name+"p")
	return setUp(t, name)
}

// addBridge adds a device without native XDP.
func addBridge(t testing.TB, name string) netlink.Link {
	t.Helper()
	must(t, "add bridge", netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}))
	return setUp(t, name)
}

// addTun adds a device without Ethernet headers, or of a link type, until the test ends.
func addTun(t testing.TB, name string, edit func(fd int) error) netlink.Link {
	t.Helper()
	f, err := lab.OpenTun(name, edit)
	if errors.Is(err, lab.ErrNoTun) {
		t.Skipf("missing feature: %v", err)
	}
	must(t, "add tun", err)
	t.Cleanup(func() { f.Close() })
	return device(t, name)
}

func setUp(t testing.TB, name string) netlink.Link {
	t.Helper()
	dev := device(t, name)
	must(t, "set up "+name, netlink.LinkSetUp(dev))
	return dev
}

func device(t testing.TB, name string) netlink.Link {
	t.Helper()
	dev, err := netlink.LinkByName(name)
	must(t, "look up "+name, err)
	return dev
}

func delDevice(t testing.TB, name string) {
	t.Helper()
	must(t, "delete "+name, netlink.LinkDel(device(t, name)))
}

// rename renames a device; older kernels want it down for that.
func rename(t testing.TB, from, to string) {
	t.Helper()
	dev := device(t, from)
	must(t, "set down", netlink.LinkSetDown(dev))
	must(t, "rename", netlink.LinkSetName(dev, to))
	must(t, "set up", netlink.LinkSetUp(dev))
}

func addAddr(t testing.TB, dev netlink.Link, cidr string) {
	t.Helper()
	addr, err := netlink.ParseAddr(cidr)
	must(t, "parse address", err)
	addr.Flags = unix.IFA_F_NODAD
	must(t, "add address", netlink.AddrAdd(dev, addr))
}

func addRoute(t testing.TB, dev netlink.Link, dst string) {
	t.Helper()
	_, ipnet, err := net.ParseCIDR(dst)
	must(t, "parse route", err)
	r := &netlink.Route{LinkIndex: dev.Attrs().Index, Dst: ipnet, Scope: netlink.SCOPE_LINK}
	must(t, "add route", netlink.RouteAdd(r))
}

// tinyProgram returns a program that lets every packet pass.
func tinyProgram(t testing.TB, typ ebpf.ProgramType) *ebpf.Program {
	t.Helper()
	verdict := int32(-1) // TCX_NEXT, TC_ACT_UNSPEC
	if typ == ebpf.XDP {
		verdict = 2 // XDP_PASS
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         typ,
		License:      "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
	must(t, "load program", err)
	t.Cleanup(func() { p.Close() })
	return p
}

// tinyPrograms stand in for the real ones where only attaching matters.
func tinyPrograms(t testing.TB) *Programs {
	t.Helper()
	return &Programs{
		XDP:       tinyProgram(t, ebpf.XDP),
		TCIngress: tinyProgram(t, ebpf.SchedCLS),
		TCEgress:  tinyProgram(t, ebpf.SchedCLS),

		PodIngress: tinyProgram(t, ebpf.SchedCLS),
		PodEgress:  tinyProgram(t, ebpf.SchedCLS),

		bare: &bare{load: func(ingress, egress **ebpf.Program) error {
			*ingress, *egress = tinyProgram(t, ebpf.SchedCLS), tinyProgram(t, ebpf.SchedCLS)
			return nil
		}},
	}
}

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// newAttacher returns an Attacher with programs of its own.
func newAttacher(t testing.TB, dir string, mode XDPMode) *Attacher {
	t.Helper()
	a := NewAttacher(tinyPrograms(t), dir, mode, discard())
	t.Cleanup(func() { a.Close() })
	return a
}

// programIDs returns the ids of the programs of p by hook.
func programIDs(t testing.TB, p *Programs) map[maps.Hook]uint32 {
	t.Helper()
	ids := make(map[maps.Hook]uint32)
	for _, hook := range slices.Concat(uplinkHooks, podHooks) {
		id, err := programID(p.program(hook))
		must(t, "program id", err)
		ids[hook] = uint32(id)
	}
	return ids
}

// pinnedLinks returns the ids of the links pinned in dir by name of the pin.
func pinnedLinks(t testing.TB, dir string) map[string]link.ID {
	t.Helper()
	ids := make(map[string]link.ID)
	entries, err := os.ReadDir(dir)
	if !errors.Is(err, fs.ErrNotExist) { // filters need no pins, hence no directory
		must(t, "read pins", err)
	}
	for _, e := range entries {
		l, err := link.LoadPinnedLink(filepath.Join(dir, e.Name()), nil)
		must(t, "load pin "+e.Name(), err)
		info, err := l.Info()
		must(t, "link info", err)
		ids[e.Name()] = info.ID
		must(t, "close link", l.Close())
	}
	return ids
}

// tcPrograms returns what the kernel runs on a device, in order, by the way of
// attaching that it prefers.
func tcPrograms(t testing.TB, dev netlink.Link, hook maps.Hook) []uint32 {
	t.Helper()
	if tcMode(t) == modeTCX {
		return tcxPrograms(t, dev, hook)
	}
	return filterIDs(t, dev, hook)
}

// tcMode returns how TC programs are attached on this kernel.
func tcMode(t testing.TB) string {
	t.Helper()
	tcx, err := supported(probeTCX())
	must(t, "probe tcx", err)
	if tcx {
		return modeTCX
	}
	return modeClsact
}

// needTCX skips what is about tcx itself.
func needTCX(t testing.TB) {
	t.Helper()
	if tcMode(t) != modeTCX {
		t.Skip("missing feature: tcx links (Linux 6.6)")
	}
}

// uplinkPins returns the names of the pins of an uplink with XDP.
func uplinkPins(t testing.TB, device string) []string {
	t.Helper()
	if tcMode(t) != modeTCX {
		return []string{"xdp-" + device}
	}
	return []string{"tcx-egress-" + device, "tcx-ingress-" + device, "xdp-" + device}
}

// tcxPrograms returns what the kernel runs on a device, in order.
func tcxPrograms(t testing.TB, dev netlink.Link, hook maps.Hook) []uint32 {
	t.Helper()
	res, err := link.QueryPrograms(link.QueryOptions{Target: dev.Attrs().Index, Attach: tcxAttachType(hook)})
	must(t, "query programs", err)
	var ids []uint32
	for _, p := range res.Programs {
		ids = append(ids, uint32(p.ID))
	}
	return ids
}

// xdpProgram returns the id of the XDP program on a device and its mode as
// netlink numbers it; zeros if there is none.
func xdpProgram(t testing.TB, name string) (id, mode uint32) {
	t.Helper()
	xdp := device(t, name).Attrs().Xdp
	if xdp == nil {
		return 0, 0
	}
	return xdp.ProgId, xdp.AttachMode
}
