package mapstest_test

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/maps/mapstest"
)

var (
	sizes = maps.Sizes{Frontends: 4, ServicePorts: 4, Backends: 8, Slots: 64, Flows: 4, HalfOpen: 4, Closed: 4, Affinity: 4, SourceRanges: 4}
	web   = maps.Frontend{Addr: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: maps.TCP}
	port  = maps.ServicePort{Namespace: "default", Service: "web", Proto: maps.TCP}
)

func flowKey(sport uint16) maps.FlowKey {
	return maps.FlowKey{
		Src:   netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), sport),
		Dst:   netip.MustParseAddrPort("10.96.0.1:80"),
		Proto: maps.TCP,
	}
}

func flowTo(pod string) maps.Flow {
	return maps.Flow{Src: netip.MustParseAddrPort("192.0.2.1:1"), Dst: netip.MustParseAddrPort(pod)}
}

// allWrites does each kind of write once and returns their errors, by kind.
func allWrites(f *mapstest.Fake) map[string]error {
	return map[string]error{
		"put frontend":        f.Frontends().Put(web, maps.Service{}),
		"delete frontend":     f.Frontends().Delete(web),
		"put service port":    f.ServicePorts().Put(1, port),
		"delete service port": f.ServicePorts().Delete(1),
		"put backend":         f.Backends().Put(1, maps.Backend{}),
		"write table":         f.Slots().Write(maps.Table{Length: 1}, []maps.BackendID{1}),
		"put runtime values":  f.Runtime().Put(maps.Runtime{}),
		"put device":          f.Devices().Put(1, maps.Device{}),
		"delete device":       f.Devices().Delete(1),
		"put station":         f.Stations().Put(maps.Station{Ifindex: 1, MAC: maps.MAC{2}}, 1),
		"delete station":      f.Stations().Delete(maps.Station{Ifindex: 1, MAC: maps.MAC{2}}),
		"put service range":   f.ServiceCIDRs().Put(netip.MustParsePrefix("10.96.0.0/12")),
		"put address":         f.Addresses(maps.ServiceAddress).Put(web.Addr, maps.AddressClusterIP),
		"delete address":      f.Addresses(maps.ServiceAddress).Delete(web.Addr),
		"delete flow":         f.Flows().Delete(flowKey(1)),
	}
}

func TestEveryKindOfWriteFailsOnDemandAndChangesNothing(t *testing.T) {
	f := mapstest.New(sizes)
	before, err := f.Contents()
	if err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	f.FailNext(15, boom)
	for kind, err := range allWrites(f) {
		if !errors.Is(err, boom) {
			t.Errorf("%s: error is %v", kind, err)
		}
	}
	after, err := f.Contents()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, after, compareAddrs); diff != "" || f.Writes() != 0 {
		t.Errorf("%d writes:\n%s", f.Writes(), diff)
	}
	for kind, err := range allWrites(f) {
		if err != nil {
			t.Errorf("%s still fails: %v", kind, err)
		}
	}
}

func TestFailuresComeWhereTheyAreAskedFor(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name string
		fail func(f *mapstest.Fake)
		want []bool // failed, write by write
	}{
		{"none", func(*mapstest.Fake) {}, []bool{false, false, false, false}},
		{"the next two", func(f *mapstest.Fake) { f.FailNext(2, boom) }, []bool{true, true, false, false}},
		{"the third", func(f *mapstest.Fake) { f.FailAfter(2, boom) }, []bool{false, false, true, false}},
		{"the first", func(f *mapstest.Fake) { f.FailAfter(0, boom) }, []bool{true, false, false, false}},
		{"taken back", func(f *mapstest.Fake) { f.FailNext(2, boom); f.FailNext(0, nil) }, []bool{false, false, false, false}},
		{"always", func(f *mapstest.Fake) { f.FailRandom(rand.New(rand.NewPCG(1, 2)), 1) }, []bool{true, true, true, true}},
		{"never", func(f *mapstest.Fake) { f.FailRandom(rand.New(rand.NewPCG(1, 2)), 0) }, []bool{false, false, false, false}},
		{"random taken back", func(f *mapstest.Fake) {
			f.FailRandom(rand.New(rand.NewPCG(1, 2)), 1)
			f.FailRandom(nil, 1)
		}, []bool{false, false, false, false}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			f := mapstest.New(sizes)
			tc.fail(f)
			var got []bool
			for range 4 {
				got = append(got, f.Frontends().Put(web, maps.Service{}) != nil)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRandomFailuresAreThoseOfTheSeed(t *testing.T) {
	run := func() (failed []int) {
		f := mapstest.New(sizes)
		f.FailRandom(rand.New(rand.NewPCG(1, 2)), 0.3)
		for i := range 1000 {
			if err := f.Runtime().Put(maps.Runtime{}); errors.Is(err, mapstest.ErrInjected) {
				failed = append(failed, i)
			}
		}
		return failed
	}
	first := run()
	if n := len(first); n < 200 || n > 400 {
		t.Errorf("%d of 1000 writes failed at probability 0.3", n)
	}
	if diff := cmp.Diff(first, run()); diff != "" {
		t.Error(diff)
	}
}

func TestPuttingAFlowNeverFailsOnDemand(t *testing.T) {
	f := mapstest.New(sizes)
	f.FailNext(1, errors.New("boom"))
	if err := f.Flows().Put(flowKey(1), flowTo("10.0.1.7:80")); err != nil {
		t.Error(err)
	}
}

func TestAFullFlowMapForgetsWhatWasUsedLeastRecently(t *testing.T) {
	f := mapstest.New(sizes)
	put := func(sport uint16) {
		t.Helper()
		if err := f.Flows().Put(flowKey(sport), flowTo("10.0.1.7:80")); err != nil {
			t.Fatal(err)
		}
	}
	for sport := range uint16(4) {
		put(sport)
	}
	put(0)
	if _, ok, err := f.Flows().Lookup(flowKey(1)); !ok || err != nil {
		t.Fatalf("found %v, error %v", ok, err)
	}
	put(4)
	got := map[uint16]bool{}
	err := f.EachFlow(func(k maps.FlowKey, _ maps.Flow) bool {
		got[k.Src.Port()] = true
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[uint16]bool{0: true, 1: true, 3: true, 4: true}, got); diff != "" {
		t.Error(diff)
	}
}

func TestFlowsMayBeDeletedWhileTheyAreRead(t *testing.T) {
	f := mapstest.New(sizes)
	for sport := range uint16(4) {
		if err := f.HalfOpen().Put(flowKey(sport), flowTo("10.0.1.7:80")); err != nil {
			t.Fatal(err)
		}
	}
	seen := 0
	err := f.EachHalfOpen(func(k maps.FlowKey, _ maps.Flow) bool {
		seen++
		if err := f.HalfOpen().Delete(k); err != nil {
			t.Error(err)
		}
		return seen < 3
	})
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	if err := f.EachHalfOpen(func(maps.FlowKey, maps.Flow) bool { left++; return true }); err != nil {
		t.Fatal(err)
	}
	if seen != 3 || left != 1 {
		t.Errorf("saw %d, left %d; want 3 and 1", seen, left)
	}
}

func TestWhatIsReadIsACopy(t *testing.T) {
	f := mapstest.New(sizes)
	table := maps.Table{Length: 2}
	err := errors.Join(
		f.Slots().Write(table, []maps.BackendID{1, 2}),
		f.Frontends().Put(web, maps.Service{Cluster: table}),
	)
	if err != nil {
		t.Fatal(err)
	}
	slots, err := f.Slots().Read(table)
	if err != nil {
		t.Fatal(err)
	}
	slots[0] = 9
	all, err := f.Frontends().All()
	if err != nil {
		t.Fatal(err)
	}
	delete(all, web)
	c, err := f.Contents()
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Frontends) != 1 || c.Tables[table][0] != 1 {
		t.Errorf("changed to %v", c)
	}
}
