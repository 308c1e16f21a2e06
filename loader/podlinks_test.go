package loader

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
)

// otherNetns returns a network namespace in which no thread is.
func otherNetns(t testing.TB) int {
	t.Helper()
	fds := make(chan int)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread goes, the file keeps the namespace
		if unix.Unshare(unix.CLONE_NEWNET) != nil {
			fds <- -1
			return
		}
		fd, _ := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		fds <- fd
	}()
	fd := <-fds
	if fd < 0 {
		t.Fatal("no other network namespace")
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// addPodLink adds a veth whose other end is in the namespace ns.
func addPodLink(t testing.TB, name string, ns int) netlink.Link {
	t.Helper()
	must(t, "add veth", netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name, PeerNamespace: netlink.NsFd(ns),
	}))
	return setUp(t, name)
}

func newPodLinks(t testing.TB, dir string, choice PodChoice) *PodLinks {
	t.Helper()
	p := NewPodLinks(tinyPrograms(t), dir, choice, discard())
	t.Cleanup(func() { p.Close() })
	return p
}

// served returns the names of the devices that have both programs of p, as the
// kernel says.
func served(t testing.TB, p *PodLinks) []string {
	t.Helper()
	var names []string
	count := make(map[string]int)
	for _, at := range p.attacher.Status() {
		dev, err := netlink.LinkByName(at.Device)
		if err != nil {
			continue
		}
		if got := tcPrograms(t, dev, at.Hook); cmp.Equal(got, []uint32{at.ProgramID}) {
			count[at.Device]++
		}
		if count[at.Device] == len(podHooks) {
			names = append(names, at.Device)
		}
	}
	return names
}

func TestPodChoice(t *testing.T) {
	attrs := func(name string, ns int) netlink.LinkAttrs {
		return netlink.LinkAttrs{Name: name, NetNsID: ns}
	}
	devices := map[string]netlink.Link{
		"a pod's":        &netlink.Veth{LinkAttrs: attrs("cali1", 3)},
		"a local veth":   &netlink.Veth{LinkAttrs: attrs("veth0", -1)},
		"a bridged pod":  &netlink.Veth{LinkAttrs: attrs("veth1", 4)},
		"a bridged VM":   &netlink.Tuntap{LinkAttrs: attrs("tap0", -1)},
		"a bridged NIC":  &netlink.Device{LinkAttrs: attrs("eth1", -1)},
		"a NIC":          &netlink.Device{LinkAttrs: attrs("eth0", -1)},
		"a VLAN to away": &netlink.Vlan{LinkAttrs: attrs("eth0.7", 5)},
		"the bridge":     &netlink.Bridge{LinkAttrs: attrs("cbr0", -1)},
	}
	masters := map[string]string{"a bridged pod": "cbr0", "a bridged VM": "cbr0", "a bridged NIC": "cbr0"}
	tests := []struct {
		name   string
		choice PodChoice
		want   []string
	}{
		{"none", PodChoice{}, nil},
		{"automatic: by namespace of the other end", PodChoice{Auto: true}, []string{"a pod's", "a bridged pod"}},
		{"automatic, by prefix", PodChoice{Auto: true, Prefix: "cali"}, []string{"a pod's"}},
		{"automatic, by bridge", PodChoice{Auto: true, Bridge: "cbr0"}, []string{"a bridged pod", "a bridged VM"}},
		{"a prefix alone chooses nothing", PodChoice{Prefix: "cali"}, nil},
		{"patterns", PodChoice{Patterns: []string{"veth*", "tap?"}}, []string{"a local veth", "a bridged pod", "a bridged VM"}},
		{"a malformed pattern", PodChoice{Patterns: []string{"[x"}}, nil},
		{"patterns beside the automatic choice", PodChoice{Auto: true, Patterns: []string{"tap0"}}, []string{"a pod's", "a bridged pod", "a bridged VM"}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			want := make(map[string]bool)
			for _, name := range tc.want {
				want[name] = true
			}
			for name, dev := range devices {
				if got := tc.choice.wants(dev, masters[name]); got != want[name] {
					t.Errorf("%s: %t", name, got)
				}
			}
		})
	}
}

func TestPodsLinksGetTheirProgramsAndUplinksDoNot(t *testing.T) {
	newNetns(t)
	ns := otherNetns(t)
	addPodLink(t, "up0", ns)
	addPodLink(t, "pod1", ns)
	addVeth(t, "here")
	p := newPodLinks(t, LinksDir(newBPFFS(t)), PodChoice{Auto: true})
	p.SetUplinks([]string{"up0"})
	must(t, "sync", p.Sync())
	if d := cmp.Diff([]string{"pod1"}, served(t, p)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(PodLinksStatus{Attached: 1}, p.Status()); d != "" {
		t.Error(d)
	}
	p.SetUplinks([]string{"pod1"})
	must(t, "sync", p.Sync())
	if d := cmp.Diff([]string{"up0"}, served(t, p)); d != "" {
		t.Errorf("with another uplink: %s", d)
	}
}

func TestTheNextAgentTakesPodsLinksOver(t *testing.T) {
	newNetns(t)
	ns, dir := otherNetns(t), LinksDir(newBPFFS(t))
	addPodLink(t, "pod1", ns)
	first := newPodLinks(t, dir, PodChoice{Auto: true})
	must(t, "sync", first.Sync())
	pins := pinnedLinks(t, dir)
	must(t, "close", first.Close())

	addPodLink(t, "pod2", ns)
	delDevice(t, "pod1")
	addPodLink(t, "pod1", ns) // while nobody looked
	gone := pinnedLinks(t, dir)
	second := newPodLinks(t, dir, PodChoice{Auto: true})
	must(t, "sync", second.Sync())
	if d := cmp.Diff([]string{"pod1", "pod2"}, served(t, second)); d != "" {
		t.Error(d)
	}
	must(t, "close", second.Close())

	third := newPodLinks(t, dir, PodChoice{Auto: true})
	must(t, "sync", third.Sync())
	if d := cmp.Diff([]string{"pod1", "pod2"}, served(t, third)); d != "" {
		t.Error(d)
	}
	if tcMode(t) == modeTCX && (len(pins) != 2 || len(gone) != 2 || len(pinnedLinks(t, dir)) != 4) {
		t.Errorf("pins: at first %v, of what is gone %v, at last %v", pins, gone, pinnedLinks(t, dir))
	}
}

// What uplinks and pods' links have does not get in each other's way.
func TestUplinksAndPodsLinksAreKeptApart(t *testing.T) {
	newNetns(t)
	ns, dir := otherNetns(t), LinksDir(newBPFFS(t))
	addPodLink(t, "pod1", ns)
	up := addVeth(t, "up0")
	a, p := newAttacher(t, dir, XDPOff), newPodLinks(t, dir, PodChoice{Auto: true})
	for range 2 { // the second time with what is pinned
		must(t, "sync uplinks", a.Sync([]string{"up0"}))
		must(t, "sync pods' links", p.Sync())
		must(t, "verify", a.Verify())
		if d := cmp.Diff([]string{"pod1"}, served(t, p)); d != "" {
			t.Error(d)
		}
		must(t, "close", a.Close())
		must(t, "close", p.Close())
	}
	must(t, "detach", NewPodLinks(nil, dir, PodChoice{}, discard()).Run(t.Context()))
	for _, hook := range podHooks {
		if got := tcPrograms(t, device(t, "pod1"), hook); len(got) != 0 {
			t.Errorf("an agent without pods' links left %v at %s", got, hook)
		}
	}
	if got := tcPrograms(t, up, maps.HookTCIngress); len(got) != 1 {
		t.Errorf("the uplink has %v", got)
	}
}

func TestPodsLinksByFilters(t *testing.T) {
	newNetns(t)
	ns, dir := otherNetns(t), LinksDir(newBPFFS(t))
	dev := addPodLink(t, "pod1", ns)
	for range 2 {
		p := newPodLinks(t, dir, PodChoice{Auto: true})
		p.attacher.noTCX = true
		must(t, "sync", p.Sync())
		for _, hook := range podHooks {
			id, err := programID(p.attacher.programs.program(hook))
			must(t, "program id", err)
			if d := cmp.Diff([]uint32{uint32(id)}, filterIDs(t, dev, hook)); d != "" {
				t.Errorf("%s: %s", hook, d)
			}
		}
	}
	must(t, "detach", NewPodLinks(nil, dir, PodChoice{}, discard()).DetachAll())
	for _, hook := range podHooks {
		if got := filterIDs(t, dev, hook); len(got) != 0 {
			t.Errorf("left %v at %s", got, hook)
		}
	}
}

func TestADeviceWithoutAnEthernetHeaderIsNamedAndLeftAlone(t *testing.T) {
	newNetns(t)
	addTun(t, "tun0", nil)
	var log bytes.Buffer
	p := NewPodLinks(tinyPrograms(t), LinksDir(newBPFFS(t)), PodChoice{Patterns: []string{"tun*"}}, slog.New(slog.NewTextHandler(&log, nil)))
	for range 2 {
		must(t, "sync", p.Sync())
	}
	if n := strings.Count(log.String(), "device=tun0"); n != 1 {
		t.Errorf("named %d times, want once:\n%s", n, &log)
	}
	if d := cmp.Diff(PodLinksStatus{}, p.Status()); d != "" {
		t.Error(d)
	}
}

func TestALinkThatCannotBeServedIsCountedAndTriedAgain(t *testing.T) {
	newNetns(t)
	ns, dir := otherNetns(t), LinksDir(newBPFFS(t))
	addPodLink(t, "pod1", ns)
	p := newPodLinks(t, dir, PodChoice{Auto: true})
	programs := *p.attacher.programs
	p.attacher.programs.PodIngress = nil
	must(t, "sync", p.Sync())
	if d := cmp.Diff(PodLinksStatus{Failing: 1}, p.Status()); d != "" {
		t.Error(d)
	}
	p.attacher.programs = &programs
	must(t, "sync", p.Sync())
	if d := cmp.Diff(PodLinksStatus{Attached: 1}, p.Status()); d != "" {
		t.Error(d)
	}
}

// runPodLinks runs p in the network namespace of the calling thread until the
// test ends.
func runPodLinks(t testing.TB, p *PodLinks) {
	t.Helper()
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, "open namespace", err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		defer unix.Close(ns)
		runtime.LockOSThread() // never unlocked: the thread stays in the namespace
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- p.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		must(t, "run", <-done)
	})
}

func eventually(t testing.TB, what string, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second) // of which the periodic look is at the end
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited for %s", what)
		}
	}
	return time.Since(begin)
}

func TestPodsLinksAreFollowed(t *testing.T) {
	newNetns(t)
	ns, dir := otherNetns(t), LinksDir(newBPFFS(t))
	p := newPodLinks(t, dir, PodChoice{Auto: true})
	runPodLinks(t, p)
	are := func(want ...string) func() bool {
		return func() bool { return cmp.Equal(want, served(t, p)) }
	}
	addPodLink(t, "early", ns)
	p.SetUplinks([]string{"up0"})
	eventually(t, "what was there", are("early"))
	addPodLink(t, "late", ns)
	t.Logf("a new link was served after %s", eventually(t, "what comes", are("early", "late")))
	rename(t, "late", "later")
	eventually(t, "what is renamed", are("early", "later"))
	delDevice(t, "early")
	eventually(t, "what goes", func() bool { return are("later")() && p.Status().Attached == 1 })
	if tcMode(t) == modeTCX {
		var names []string
		for name := range pinnedLinks(t, dir) {
			names = append(names, name)
		}
		if len(names) != 2 || !strings.HasSuffix(names[0], "later") || !strings.HasSuffix(names[1], "later") {
			t.Errorf("pins: %q", names)
		}
	}
	p.SetUplinks([]string{"later"})
	eventually(t, "what is an uplink now", func() bool { return p.Status().Attached == 0 })
}

// Pods of one name follow each other, as in a StatefulSet.
func TestALinkMayHaveTheNameOfOneThatIsGone(t *testing.T) {
	newNetns(t)
	ns := otherNetns(t)
	p := newPodLinks(t, LinksDir(newBPFFS(t)), PodChoice{Auto: true})
	p.SetUplinks(nil)
	runPodLinks(t, p)
	for range 20 {
		index := addPodLink(t, "pod", ns).Attrs().Index
		eventually(t, "the link to be served", func() bool {
			for _, at := range p.attacher.Status() {
				if at.Ifindex == index && at.Hook == maps.HookPodIngress {
					return true
				}
			}
			return false
		})
		delDevice(t, "pod")
	}
}

func TestWhatIsHeardIsOneBatchUntilItIsTaken(t *testing.T) {
	e := &linkEvents{changed: make(chan []int), done: make(chan struct{})}
	heard := make(chan []int)
	go e.gather(heard)
	defer close(e.done)
	heard <- []int{}
	heard <- []int{3, 4}
	heard <- []int{4, 5}
	if d := cmp.Diff([]int{3, 4, 5}, <-e.changed); d != "" {
		t.Error(d)
	}
	heard <- []int{6}
	heard <- nil // lost
	heard <- []int{7}
	if got := <-e.changed; got != nil {
		t.Errorf("after a loss: %v", got)
	}
	heard <- []int{8}
	if d := cmp.Diff([]int{8}, <-e.changed); d != "" {
		t.Error(d)
	}
}

// BenchmarkPodLinks: what a start, a restart and the regular look cost.
func BenchmarkPodLinks(b *testing.B) {
	newNetns(b)
	ns, dir := otherNetns(b), LinksDir(newBPFFS(b))
	const links = 200
	for i := range links {
		addPodLink(b, fmt.Sprintf("pod%d", i), ns)
	}
	look := func(p *PodLinks) float64 {
		begin := time.Now()
		must(b, "sync", p.Sync())
		return float64(time.Since(begin).Microseconds()) / 1000
	}
	for range b.N {
		p := newPodLinks(b, dir, PodChoice{Auto: true})
		b.ReportMetric(look(p), "ms/start")
		b.ReportMetric(look(p), "ms/look")
		must(b, "close", p.Close())
		next := newPodLinks(b, dir, PodChoice{Auto: true})
		b.ReportMetric(look(next), "ms/restart")
		must(b, "detach", next.DetachAll())
	}
	b.ReportMetric(0, "ns/op")
}
