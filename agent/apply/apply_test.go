package apply

import (
	"errors"
	"fmt"
	stdmaps "maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/plan"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/maps/mapstest"
)

var (
	errRefused = errors.New("refused on demand")
	sizes      = maps.Sizes{Frontends: 16, ServicePorts: 16, Backends: 16, Slots: 64, Flows: 1, HalfOpen: 1, Closed: 1, SourceRanges: 16}
)

// recorder is maps in memory that note each write by name, and refuse those
// whose name is in refuse.
type recorder struct {
	fake   *mapstest.Fake
	refuse map[string]bool
	log    []string
}

func newRecorder(refuse ...string) *recorder {
	r := &recorder{fake: mapstest.New(sizes), refuse: map[string]bool{}}
	for _, name := range refuse {
		r.refuse[name] = true
	}
	return r
}

func (r *recorder) note(name string, write func() error) error {
	if r.refuse[name] {
		return errRefused
	}
	r.log = append(r.log, name)
	return write()
}

func (r *recorder) targets() Targets {
	return Targets{
		Frontends: recFrontends{r.fake.Frontends(), r}, ServicePorts: recPorts{r.fake.ServicePorts(), r},
		Backends: recBackends{r.fake.Backends(), r}, Slots: recSlots{r.fake.Slots(), r},
		SourceRanges: recRanges{r.fake.SourceRanges(), r}, Addresses: recAddresses{r.fake.Addresses(maps.ServiceAddress), r},
	}
}

type recFrontends struct {
	mapstest.Frontends
	r *recorder
}

func (a recFrontends) Put(f maps.Frontend, v maps.Service) error {
	return a.r.note(fmt.Sprint("put frontend ", f.Port), func() error { return a.Frontends.Put(f, v) })
}

func (a recFrontends) Delete(f maps.Frontend) error {
	return a.r.note(fmt.Sprint("delete frontend ", f.Port), func() error { return a.Frontends.Delete(f) })
}

type recPorts struct {
	mapstest.ServicePorts
	r *recorder
}

func (a recPorts) Put(id maps.ServicePortID, p maps.ServicePort) error {
	return a.r.note(fmt.Sprint("put port ", id), func() error { return a.ServicePorts.Put(id, p) })
}

func (a recPorts) Delete(id maps.ServicePortID) error {
	return a.r.note(fmt.Sprint("delete port ", id), func() error { return a.ServicePorts.Delete(id) })
}

type recBackends struct {
	mapstest.Backends
	r *recorder
}

func (a recBackends) Put(id maps.BackendID, b maps.Backend) error {
	return a.r.note(fmt.Sprintf("put backend %d %s", id, b.State), func() error { return a.Backends.Put(id, b) })
}

type recSlots struct {
	mapstest.Slots
	r *recorder
}

func (a recSlots) Write(t maps.Table, slots []maps.BackendID) error {
	return a.r.note(fmt.Sprint("write table ", t.Offset), func() error { return a.Slots.Write(t, slots) })
}

type recRanges struct {
	mapstest.SourceRanges
	r *recorder
}

func (a recRanges) Put(v maps.SourceRange) error {
	return a.r.note(fmt.Sprint("put range ", v.ServicePort), func() error { return a.SourceRanges.Put(v) })
}

func (a recRanges) Delete(v maps.SourceRange) error {
	return a.r.note(fmt.Sprint("delete range ", v.ServicePort), func() error { return a.SourceRanges.Delete(v) })
}

type recAddresses struct {
	mapstest.Addresses
	r *recorder
}

func (a recAddresses) Put(addr netip.Addr, f maps.AddressFlags) error {
	return a.r.note(fmt.Sprint("put address ", addr), func() error { return a.Addresses.Put(addr, f) })
}

func (a recAddresses) Delete(addr netip.Addr) error {
	return a.r.note(fmt.Sprint("delete address ", addr), func() error { return a.Addresses.Delete(addr) })
}

func address(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 96, 0, byte(n)}) }

func sourceRange(id maps.ServicePortID) maps.SourceRange {
	return maps.SourceRange{ServicePort: id, Prefix: netip.MustParsePrefix("192.0.2.0/24")}
}

func frontend(port uint16) maps.Frontend {
	return maps.Frontend{Addr: netip.MustParseAddr("10.96.0.1"), Port: port, Proto: maps.TCP}
}

func backend(state maps.State) maps.Backend {
	return maps.Backend{Addr: netip.MustParseAddrPort("10.0.0.1:8080"), State: state, Generation: 1}
}

func named(name string) service.Name { return service.Name{Namespace: "shop", Name: name} }

// everyWrite is a plan with one write of each kind for the service, numbered n.
func everyWrite(name service.Name, n uint16) plan.Plan {
	port := maps.ServicePort{Namespace: "shop", Service: name.Name, Proto: maps.TCP}
	id, backendID := maps.ServicePortID(n), maps.BackendID(n)
	return plan.Plan{
		DeleteFrontends: []plan.FrontendDelete{{Service: name, Frontend: frontend(100 + n)}},
		PutServicePorts: []plan.ServicePortPut{{Service: name, ID: id, Port: port}},
		PutBackends:     []plan.BackendPut{{Service: name, ID: backendID, Backend: backend(maps.Active)}},
		WriteTables: []plan.TableWrite{{
			Service: name, Table: maps.Table{Offset: uint32(n), Length: 1}, Slots: []maps.BackendID{backendID},
		}},
		PutRanges:          []plan.RangeWrite{{Service: name, Range: sourceRange(id)}},
		PutFrontends:       []plan.FrontendPut{{Service: name, Frontend: frontend(n), Value: maps.Service{ServicePort: id}}},
		RetireBackends:     []plan.BackendPut{{Service: name, ID: backendID + 8, Backend: backend(maps.Gone)}},
		DeleteRanges:       []plan.RangeWrite{{Service: name, Range: sourceRange(id + 8)}},
		DeleteServicePorts: []plan.ServicePortDelete{{Service: name, ID: id + 8}},
		DeleteAddresses:    []plan.AddressWrite{{Service: name, Addr: address(100 + int(n))}},
		PutAddresses:       []plan.AddressWrite{{Service: name, Addr: address(int(n)), Flags: maps.AddressClusterIP}},
	}
}

func writesOf(n int) []string {
	return []string{
		fmt.Sprint("delete frontend ", 100+n), fmt.Sprint("delete address ", address(100+n)), fmt.Sprint("put port ", n), fmt.Sprintf("put backend %d active", n),
		fmt.Sprint("write table ", n), fmt.Sprint("put range ", n), fmt.Sprint("put frontend ", n),
		fmt.Sprintf("put backend %d gone", n+8), fmt.Sprint("delete range ", n+8), fmt.Sprint("delete port ", n+8),
		fmt.Sprint("put address ", address(n)),
	}
}

// both is the two plans in one, kind by kind.
func both(p, q plan.Plan) plan.Plan {
	return plan.Plan{
		DeleteFrontends:    slices.Concat(p.DeleteFrontends, q.DeleteFrontends),
		PutServicePorts:    slices.Concat(p.PutServicePorts, q.PutServicePorts),
		PutBackends:        slices.Concat(p.PutBackends, q.PutBackends),
		WriteTables:        slices.Concat(p.WriteTables, q.WriteTables),
		PutRanges:          slices.Concat(p.PutRanges, q.PutRanges),
		PutFrontends:       slices.Concat(p.PutFrontends, q.PutFrontends),
		RetireBackends:     slices.Concat(p.RetireBackends, q.RetireBackends),
		DeleteRanges:       slices.Concat(p.DeleteRanges, q.DeleteRanges),
		DeleteServicePorts: slices.Concat(p.DeleteServicePorts, q.DeleteServicePorts),
		DeleteAddresses:    slices.Concat(p.DeleteAddresses, q.DeleteAddresses),
		PutAddresses:       slices.Concat(p.PutAddresses, q.PutAddresses),
	}
}

func TestWritesAreDoneInTheOrderOfThePlan(t *testing.T) {
	r := newRecorder()
	result := Apply(both(everyWrite(named("a"), 1), everyWrite(named("b"), 2)), r.targets())
	var want []string
	for i, w := range writesOf(1) {
		want = append(want, w, writesOf(2)[i])
	}
	if diff := cmp.Diff(want, r.log); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	if result.Writes != len(want) || len(result.Failed) != 0 {
		t.Errorf("%d writes and failures %v, want %d and none", result.Writes, result.Failed, len(want))
	}
}

func TestARefusedWriteStopsItsServiceOnly(t *testing.T) {
	p := both(everyWrite(named("a"), 1), everyWrite(named("b"), 2))
	for i, refused := range writesOf(1) {
		t.Run(refused, func(t *testing.T) {
			r := newRecorder(refused)
			result := Apply(p, r.targets())
			wantDone := append(slices.Clone(writesOf(1)[:i]), writesOf(2)...)
			slices.Sort(wantDone)
			if diff := cmp.Diff(wantDone, slices.Sorted(slices.Values(r.log))); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
			if result.Writes != len(wantDone) {
				t.Errorf("%d writes counted, want %d", result.Writes, len(wantDone))
			}
			wantFailed(t, result, "shop/a")
			if err := result.Failed[named("a")]; !errors.Is(err, errRefused) {
				t.Errorf("error %v, want %v in it", err, errRefused)
			}
		})
	}
}

func wantFailed(t *testing.T, r Result, want ...string) {
	t.Helper()
	var got []string
	for name := range stdmaps.Keys(r.Failed) {
		got = append(got, name.String())
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("failed services (-want +got):\n%s", diff)
	}
}

// handover is the plan in which b takes frontend 2 from a, which then retires
// its backend 9; c has nothing to do with it.
func handover() plan.Plan {
	p := both(everyWrite(named("a"), 1), both(everyWrite(named("b"), 2), everyWrite(named("c"), 3)))
	p.PutFrontends[1].From = named("a")
	return p
}

func TestAFrontendThatIsNotHandedOverKeepsItsBackends(t *testing.T) {
	for _, tc := range []struct {
		name, refused string
		kept          []string // writes that must not be done
	}{
		{"the flip is refused", "put frontend 2", []string{"put backend 9 gone", "delete port 9", "put backend 10 gone"}},
		{"an earlier write of the new owner is refused", "write table 2", []string{"put backend 9 gone", "delete port 9", "put frontend 2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRecorder(tc.refused)
			result := Apply(handover(), r.targets())
			for _, w := range tc.kept {
				if slices.Contains(r.log, w) {
					t.Errorf("%q was done", w)
				}
			}
			wantFailed(t, result, "shop/a", "shop/b")
			if err := result.Failed[named("a")]; !errors.Is(err, errRefused) || !strings.Contains(err.Error(), frontend(2).String()) {
				t.Errorf("error of the old owner: %v", err)
			}
			if !slices.Contains(r.log, "put frontend 1") || !slices.Contains(r.log, "put backend 11 gone") {
				t.Errorf("what has nothing to do with it was not done: %v", r.log)
			}
		})
	}
}

func TestAHandoverThatSucceedsRetires(t *testing.T) {
	r := newRecorder()
	if result := Apply(handover(), r.targets()); len(result.Failed) > 0 || !slices.Contains(r.log, "put backend 9 gone") {
		t.Errorf("failed %v, writes %v", result.Failed, r.log)
	}
}

func TestReadReturnsWhatWasWritten(t *testing.T) {
	r := newRecorder()
	table := maps.Table{Offset: 60, Length: 4}
	value := maps.Service{ServicePort: 1, Cluster: table}
	err := errors.Join(
		r.fake.Slots().Write(table, []maps.BackendID{3, 3, 3, 3}),
		r.fake.Frontends().Put(frontend(1), value),
		r.fake.Backends().Put(3, backend(maps.Active)),
		r.fake.SourceRanges().Put(sourceRange(1)),
		r.fake.Addresses(maps.ServiceAddress).Put(address(1), maps.AddressExternal),
		r.fake.Addresses(maps.NodeAddress).Put(address(1), maps.AddressNode),
		r.fake.Addresses(maps.NodeAddress).Put(address(2), maps.AddressNode),
		r.fake.ServicePorts().Put(1, maps.ServicePort{Namespace: "shop", Service: "a", Proto: maps.TCP}),
	)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read(r.targets())
	if err != nil {
		t.Fatal(err)
	}
	want := plan.State{
		Frontends:    map[maps.Frontend]maps.Service{frontend(1): value},
		ServicePorts: map[maps.ServicePortID]maps.ServicePort{1: {Namespace: "shop", Service: "a", Proto: maps.TCP}},
		Backends:     map[maps.BackendID]maps.Backend{3: backend(maps.Active)},
		Tables:       map[maps.Table][]maps.BackendID{table: {3, 3, 3, 3}},
		SourceRanges: map[maps.SourceRange]struct{}{sourceRange(1): {}},
		Addresses:    map[netip.Addr]maps.AddressFlags{address(1): maps.AddressExternal},
	}
	byValue := cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
}

// Maps that another version filled, with fewer slots by now.
func TestATableBeyondTheSlotsIsReadAsEmpty(t *testing.T) {
	for _, table := range []maps.Table{
		{Offset: 60, Length: 5}, {Offset: 64, Length: 1}, {Offset: ^uint32(0), Length: 2}, {Offset: 2, Length: ^uint32(0)},
	} {
		r := newRecorder()
		if err := r.fake.Frontends().Put(frontend(1), maps.Service{ServicePort: 1, Local: table}); err != nil {
			t.Fatal(err)
		}
		got, err := Read(r.targets())
		if err != nil || len(got.Tables[table]) != 0 || len(got.Frontends) != 1 {
			t.Errorf("table %s: state %v, error %v", table, got, err)
		}
	}
}

// unreadable is a map that cannot be read.
type unreadable struct{ mapstest.Backends }

func (unreadable) All() (map[maps.BackendID]maps.Backend, error) { return nil, errRefused }

func TestAMapThatCannotBeReadIsAnError(t *testing.T) {
	targets := newRecorder().targets()
	targets.Backends = unreadable{}
	if _, err := Read(targets); !errors.Is(err, errRefused) {
		t.Errorf("error %v, want %v in it", err, errRefused)
	}
}
