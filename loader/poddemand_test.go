package loader

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// demanding are PodLinks on demand, told of uplinks as an agent does first.
func demanding(t testing.TB, dir string) *PodLinks {
	t.Helper()
	p := newPodLinks(t, dir, PodChoice{Auto: true, OnDemand: true})
	p.SetUplinks(nil)
	return p
}

func wantServed(t *testing.T, when string, p *PodLinks, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, served(t, p)); d != "" {
		t.Errorf("%s: %s", when, d)
	}
}

func TestLinksOnDemandHaveProgramsWhileNeededOrUsed(t *testing.T) {
	newNetns(t)
	ns := otherNetns(t)
	addPodLink(t, "pod1", ns)
	p := demanding(t, LinksDir(newBPFFS(t)))
	look := func() { t.Helper(); must(t, "sync", p.Sync()) }
	look()
	wantServed(t, "nobody has asked", p)
	p.Need(false)
	p.Used(true) // by what an earlier agent began
	look()
	wantServed(t, "nobody needs them", p)
	p.Need(true)
	wantServed(t, "needed", p, "pod1") // before Need returns
	addPodLink(t, "pod2", ns)
	look()
	wantServed(t, "a pod comes", p, "pod1", "pod2")
	p.Used(false)
	look()
	wantServed(t, "needed, not used", p, "pod1", "pod2")
	p.Need(false)
	addPodLink(t, "pod3", ns)
	p.Used(true)
	look()
	wantServed(t, "used only", p, "pod1", "pod2")
	delDevice(t, "pod2")
	look()
	wantServed(t, "a pod leaves", p, "pod1")
	p.Used(false)
	look()
	wantServed(t, "neither", p)
	p.Need(false) // with every sync
	p.Need(true)
	wantServed(t, "needed again", p, "pod1", "pod3")
}

func TestTheNextAgentKeepsLinksOnDemandUntilItKnows(t *testing.T) {
	newNetns(t)
	ns, dir := otherNetns(t), LinksDir(newBPFFS(t))
	addPodLink(t, "pod1", ns)
	first := demanding(t, dir)
	first.Need(true)
	must(t, "close", first.Close())
	next := demanding(t, dir)
	must(t, "sync", next.Sync())
	wantServed(t, "the source is not heard yet", next, "pod1")
	addPodLink(t, "pod2", ns)
	must(t, "sync", next.Sync())
	wantServed(t, "a pod comes", next, "pod1", "pod2")
	must(t, "close", next.Close())

	third := demanding(t, dir)
	third.Need(false)
	third.Used(true)
	must(t, "sync", third.Sync())
	if n := third.Status().Attached; n != 2 {
		t.Errorf("nobody needs them, but they are used: %d links have programs, want 2", n)
	}
	third.Used(false)
	must(t, "sync", third.Sync())
	wantServed(t, "not used any more", third)
}

func TestNeedWaitsForUplinks(t *testing.T) {
	newNetns(t)
	addPodLink(t, "up0", otherNetns(t))
	p := newPodLinks(t, LinksDir(newBPFFS(t)), PodChoice{Auto: true, OnDemand: true})
	p.Need(true)
	if n := p.Status().Attached; n != 0 {
		t.Errorf("%d links have programs, before it is known which are uplinks", n)
	}
}
