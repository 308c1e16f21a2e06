package reconcile

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/agent/apply"
	"github.com/ebb-lb/ebb/agent/health"
	"github.com/ebb-lb/ebb/agent/ids"
	"github.com/ebb-lb/ebb/agent/plan"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/maps/mapstest"
)

func newTestLoop(t *testing.T, fake *mapstest.Fake, store *service.Store) *Loop {
	t.Helper()
	l, err := New(Config{
		Capacities: plan.Capacities{Frontends: 64, ServicePorts: 64, Backends: 64, Slots: 1 << 12, SourceRanges: 64},
	}, Parts{
		PodLinks: func(bool) {},
		Store:    store, Health: &health.State{Now: time.Now}, Log: slog.New(slog.DiscardHandler),
		Maps: apply.Targets{
			Frontends: fake.Frontends(), ServicePorts: fake.ServicePorts(),
			Backends: fake.Backends(), Slots: fake.Slots(), SourceRanges: fake.SourceRanges(),
			Addresses: fake.Addresses(maps.ServiceAddress),
		},
		Runtime: fake.Runtime(), ServiceCIDRs: fake.ServiceCIDRs(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// syncOnce syncs the services, but neither addresses nor devices.
func syncOnce(l *Loop) error {
	var r Report
	l.syncServices(l.take(), &r)
	return r.Err
}

func newFake() *mapstest.Fake {
	return mapstest.New(maps.Sizes{Frontends: 64, ServicePorts: 64, Backends: 64, Slots: 1 << 12, Flows: 1, HalfOpen: 1, Closed: 1, SourceRanges: 64})
}

func put(store *service.Store, name, clusterIP string) {
	store.PutService(&service.Service{
		Name:       service.Name{Namespace: "shop", Name: name},
		ClusterIPs: []netip.Addr{netip.MustParseAddr(clusterIP)},
		Ports:      []service.Port{{PortKey: service.PortKey{Proto: service.TCP}, Port: 80}},
	})
}

func frontends(t *testing.T, fake *mapstest.Fake) map[maps.Frontend]maps.Service {
	t.Helper()
	all, err := fake.Frontends().All()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A full plan deletes what it is not told of. An event that comes between a
// failed sync and its retry names one service only.
func TestAnEventAfterAFailedSyncDeletesNothing(t *testing.T) {
	store, fake := service.NewStore(time.Now), newFake()
	put(store, "a", "10.96.0.1")
	put(store, "b", "10.96.0.2")
	store.SetSynced()
	l := newTestLoop(t, fake, store)
	fake.FailNext(1, errors.New("refused on demand"))
	if err := syncOnce(l); err == nil {
		t.Fatal("a refused write was not reported")
	}
	l.full = true // as again() has it
	put(store, "c", "10.96.0.3")
	if err := syncOnce(l); err != nil {
		t.Fatal(err)
	}
	if got := frontends(t, fake); len(got) != 3 {
		t.Errorf("%d frontends, want those of 3 services: %v", len(got), got)
	}
}

// What waits since a change is not younger for having been tried.
func TestAServiceThatFailedKeepsTheTimeOfItsChange(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	store, fake := service.NewStore(func() time.Time { return now }), newFake()
	store.SetSynced()
	l := newTestLoop(t, fake, store)
	changed := now
	put(store, "a", "10.96.0.1")
	put(store, "b", "10.96.0.2")
	fake.FailNext(1, errors.New("refused on demand")) // a write for a
	now = now.Add(time.Second)
	if err := syncOnce(l); err == nil {
		t.Fatal("a refused write was not reported")
	}
	want := map[string]time.Time{"a": changed, "b": {}} // b is there only because all are
	for _, v := range l.take().Services {
		if v.Received != want[v.Name.Name] {
			t.Errorf("%s: changed at %v, want %v", v.Name, v.Received, want[v.Name.Name])
		}
		delete(want, v.Name.Name)
	}
	if len(want) > 0 {
		t.Errorf("not tried again: %v", want)
	}
}

// A service without room is tried again on its own: the others are in the maps.
func TestLackOfRoomIsTriedAgainForTheServiceOnly(t *testing.T) {
	store, fake := service.NewStore(time.Now), newFake()
	store.SetSynced()
	l := newTestLoop(t, fake, store)
	for i := range 65 { // one more than there is room for
		put(store, fmt.Sprintf("s%02d", i), fmt.Sprintf("10.96.0.%d", i+1))
	}
	if err := syncOnce(l); !errors.Is(err, ids.ErrFull) {
		t.Fatalf("error %v, want one about lack of room", err)
	}
	if ch := l.take(); len(ch.Services) != 1 || ch.Services[0].Name.Name != "s64" {
		t.Errorf("%d services are tried again, want s64 only", len(ch.Services))
	}
}

func TestASecondSyncWritesNothing(t *testing.T) {
	store, fake := service.NewStore(time.Now), newFake()
	put(store, "a", "10.96.0.1")
	store.SetSynced()
	l := newTestLoop(t, fake, store)
	if err := syncOnce(l); err != nil {
		t.Fatal(err)
	}
	before := fake.Writes()
	restarted := newTestLoop(t, fake, store)
	if err := syncOnce(restarted); err != nil {
		t.Fatal(err)
	}
	if got := fake.Writes() - before; got != 0 || before == 0 {
		t.Errorf("%d writes after a restart and %d before, want 0 and some", got, before)
	}
}
