package maps

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/bpf"
)

var (
	web        = Frontend{Addr: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: TCP}
	web6       = Frontend{Addr: netip.MustParseAddr("fd00:96::1"), Port: 80, Proto: TCP}
	webPort    = ServicePort{Namespace: "default", Service: "web", Port: "http", Proto: TCP}
	webFlowKey = FlowKey{
		Src:   netip.MustParseAddrPort("192.0.2.1:4000"),
		Dst:   netip.MustParseAddrPort("10.96.0.1:80"),
		Proto: TCP,
	}
	webFlow = Flow{
		Src:     netip.MustParseAddrPort("192.0.2.1:4000"),
		Dst:     netip.MustParseAddrPort("10.0.1.7:8080"),
		Backend: 3, Generation: 1, Seen: 77, Flags: FlowRemote | FlowFIN, Since: time.Second,
	}
)

var (
	range4 = SourceRange{ServicePort: 1, Prefix: netip.MustParsePrefix("192.0.2.0/24")}
	range6 = SourceRange{ServicePort: 1, Prefix: netip.MustParsePrefix("2001:db8::/33")}
	pods4  = netip.MustParsePrefix("10.244.0.0/16")
	pods6  = netip.MustParsePrefix("fd00:244::/56")
	cidr4  = netip.MustParsePrefix("10.96.0.0/12")
	cidr6  = netip.MustParsePrefix("fd00:96::/108")
	both   = netip.MustParseAddr("192.0.2.9") // the node's, and a Service's
	tagged = Station{Ifindex: 1, VLAN: 100, MAC: MAC{2, 0, 0, 0, 0, 1}}
)

// fill writes one entry or more into each map of the control plane, 17 writes
// in all, and one flow.
func fill(t *testing.T, s *Set) {
	t.Helper()
	table := Table{Offset: 5, Length: 3}
	err := errors.Join(
		s.ServicePorts().Put(1, webPort),
		s.Backends().Put(3, Backend{Addr: netip.MustParseAddrPort("10.0.1.7:8080"),
			State: Active, Local: true, Generation: 1, ServicePort: 1}),
		s.Backends().Put(7, Backend{Addr: netip.MustParseAddrPort("[fd00::7]:8080"),
			State: Draining, Generation: 4, ServicePort: 1}),
		s.Slots().Write(table, []BackendID{3, 7, 3}),
		s.Frontends().Put(web, Service{ServicePort: 1, Cluster: table}),
		s.Frontends().Put(web6, Service{ServicePort: 1, ExternalLocal: true, Cluster: table, Local: Table{63, 1}}),
		s.Runtime().Put(Runtime{SNAT4: netip.MustParseAddr("10.0.0.1")}),
		s.Devices().Put(2, Device{Lower: 1, VLAN: 100, XDPTx: true}),
		s.Stations().Put(tagged, 2),
		s.SourceRanges().Put(range4), s.SourceRanges().Put(range6),
		s.ServiceCIDRs().Put(cidr4), s.ServiceCIDRs().Put(cidr6),
		s.Secured().Put(pods6),
		s.Addresses(ServiceAddress).Put(web.Addr, AddressClusterIP),
		s.Addresses(ServiceAddress).Put(both, AddressExternal),
		s.Addresses(NodeAddress).Put(both, AddressNode),
		s.Flows().Put(webFlowKey, webFlow),
	)
	if err != nil {
		t.Fatal(err)
	}
}

func TestContentsAreWhatWasWritten(t *testing.T) {
	s := newSet(t, smallSizes())
	fill(t, s)
	table := Table{Offset: 5, Length: 3}
	want := Contents{
		Frontends: map[Frontend]Service{
			web:  {ServicePort: 1, Cluster: table},
			web6: {ServicePort: 1, ExternalLocal: true, Cluster: table, Local: Table{63, 1}},
		},
		ServicePorts: map[ServicePortID]ServicePort{1: webPort},
		Backends: map[BackendID]Backend{
			3: {Addr: netip.MustParseAddrPort("10.0.1.7:8080"), State: Active, Local: true, Generation: 1, ServicePort: 1},
			7: {Addr: netip.MustParseAddrPort("[fd00::7]:8080"), State: Draining, Generation: 4, ServicePort: 1},
		},
		Tables:       map[Table][]BackendID{table: {3, 7, 3}, {63, 1}: {0}},
		SourceRanges: map[SourceRange]struct{}{range4: {}, range6: {}},
		ServiceCIDRs: map[netip.Prefix]struct{}{cidr4: {}, cidr6: {}},
		Secured:      map[netip.Prefix]struct{}{pods6: {}},
		Addresses:    map[netip.Addr]AddressFlags{web.Addr: AddressClusterIP, both: AddressExternal | AddressNode},
		Runtime:      Runtime{SNAT4: netip.MustParseAddr("10.0.0.1")},
		Devices:      map[uint32]Device{2: {Lower: 1, VLAN: 100, XDPTx: true}},
		Stations:     map[Station]uint32{tagged: 2},
	}
	got, err := s.Contents()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, compareAddrs); diff != "" {
		t.Error(diff)
	}
}

func TestContentsWithATableBeyondTheSlotsNameTheFrontend(t *testing.T) {
	s := newSet(t, smallSizes())
	if err := s.Frontends().Put(web, Service{Local: Table{64, 1}}); err != nil {
		t.Fatal(err)
	}
	_, err := s.Contents()
	if err == nil || !strings.Contains(err.Error(), web.String()) {
		t.Errorf("error is %v", err)
	}
}

func TestOnlyChangesOfTheControlPlaneCountAsWrites(t *testing.T) {
	absent := Frontend{Addr: netip.MustParseAddr("10.96.0.9"), Port: 80, Proto: TCP}
	tests := []struct {
		name string
		do   func(s *Set) error
		want uint64
	}{
		{"putting a frontend again", func(s *Set) error { return s.Frontends().Put(web, Service{}) }, 1},
		{"deleting a frontend", func(s *Set) error { return s.Frontends().Delete(web) }, 1},
		{"deleting an absent frontend", func(s *Set) error { return s.Frontends().Delete(absent) }, 0},
		{"deleting a frontend no map can have", func(s *Set) error {
			return s.Frontends().Delete(Frontend{Addr: netip.AddrFrom16(web.Addr.As16()), Port: 80, Proto: TCP})
		}, 0},
		{"putting a source range again", func(s *Set) error { return s.SourceRanges().Put(range4) }, 1},
		{"deleting a source range", func(s *Set) error { return s.SourceRanges().Delete(range4) }, 1},
		{"deleting an absent source range", func(s *Set) error {
			return s.SourceRanges().Delete(SourceRange{ServicePort: 2, Prefix: range4.Prefix})
		}, 0},
		{"deleting a service range", func(s *Set) error { return s.ServiceCIDRs().Delete(cidr6) }, 1},
		{"deleting an absent service range", func(s *Set) error { return s.ServiceCIDRs().Delete(pods6) }, 0},
		{"putting an address again", func(s *Set) error { return s.Addresses(NodeAddress).Put(both, AddressNode) }, 1},
		{"deleting an address", func(s *Set) error { return s.Addresses(ServiceAddress).Delete(web.Addr) }, 1},
		{"deleting an address of others", func(s *Set) error { return s.Addresses(NodeAddress).Delete(web.Addr) }, 0},
		{"deleting affinity", func(s *Set) error { return s.Affinity().Delete(AffinityKey{Client: pods4.Addr()}) }, 0},
		{"deleting a socket", func(s *Set) error { return s.Sockets().Delete(SocketKey{Addr: webFlowKey.Dst, Proto: UDP}) }, 0},
		{"deleting a service port", func(s *Set) error { return s.ServicePorts().Delete(1) }, 1},
		{"deleting an absent service port", func(s *Set) error { return s.ServicePorts().Delete(2) }, 0},
		{"freeing a backend", func(s *Set) error { return s.Backends().Put(3, Backend{Generation: 1}) }, 1},
		{"writing a table", func(s *Set) error { return s.Slots().Write(Table{0, 2}, []BackendID{1, 2}) }, 1},
		{"writing an empty table", func(s *Set) error { return s.Slots().Write(Table{Offset: 64}, nil) }, 0},
		{"putting runtime values", func(s *Set) error { return s.Runtime().Put(Runtime{}) }, 1},
		{"putting a device", func(s *Set) error { return s.Devices().Put(3, Device{}) }, 1},
		{"deleting a device", func(s *Set) error { return s.Devices().Delete(2) }, 1},
		{"deleting an absent device", func(s *Set) error { return s.Devices().Delete(3) }, 0},
		{"putting a station", func(s *Set) error { return s.Stations().Put(Station{Ifindex: 3, MAC: tagged.MAC}, 3) }, 1},
		{"deleting a station", func(s *Set) error { return s.Stations().Delete(tagged) }, 1},
		{"deleting an absent station", func(s *Set) error { return s.Stations().Delete(Station{Ifindex: 1, MAC: tagged.MAC}) }, 0},
		{"deleting a flow", func(s *Set) error { return s.Flows().Delete(webFlowKey) }, 0},
		{"deleting an absent flow", func(s *Set) error { return s.HalfOpen().Delete(webFlowKey) }, 0},
		{"reading everything", func(s *Set) error { _, err := s.Contents(); return err }, 0},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s := newSet(t, smallSizes())
			fill(t, s)
			before := s.Writes()
			if before != 17 {
				t.Errorf("%d writes so far, want 17", before)
			}
			if err := tc.do(s); err != nil {
				t.Fatal(err)
			}
			if got := s.Writes() - before; got != tc.want {
				t.Errorf("counted as %d writes, want %d", got, tc.want)
			}
		})
	}
}

func TestRefusedPutsNameTheEntryAndDoNotCount(t *testing.T) {
	tests := []struct {
		name string
		put  func(s *Set) error
		want string
		full bool
	}{
		{"a frontend too many", func(s *Set) error {
			return putMany(5, func(i int) error {
				return s.Frontends().Put(Frontend{web.Addr, uint16(100 + i), TCP}, Service{})
			})
		}, "put frontend 10.96.0.1:104/TCP: map is full", true},
		{"a service port too many", func(s *Set) error {
			return putMany(5, func(i int) error { return s.ServicePorts().Put(ServicePortID(i), webPort) })
		}, "put service port 4 (default/web:http/TCP): map is full", true},
		{"a backend beyond the last", func(s *Set) error {
			return s.Backends().Put(8, Backend{})
		}, "put backend 8: ", false},
		{"a table beyond the end", func(s *Set) error {
			return s.Slots().Write(Table{63, 2}, []BackendID{1, 2})
		}, "write table 63+2: ", false},
		{"an invalid frontend", func(s *Set) error {
			return s.Frontends().Put(Frontend{Addr: web.Addr, Proto: TCP}, Service{})
		}, "put frontend 10.96.0.1:0/TCP: port 0", false},
		{"an invalid device", func(s *Set) error {
			return s.Devices().Put(2, Device{VLAN: 4095})
		}, "put device 2: ", false},
		{"a station of a group", func(s *Set) error {
			return s.Stations().Put(Station{Ifindex: 1, MAC: MAC{1, 0, 0x5e}}, 1)
		}, "put station 1 01:00:5e:00:00:00: ", false},
		{"an invalid flow", func(s *Set) error {
			return s.HalfOpen().Put(webFlowKey, Flow{})
		}, "put half-open flow TCP 192.0.2.1:4000 > 10.96.0.1:80: no address", false},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s := newSet(t, smallSizes())
			err := tc.put(s)
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Fatalf("error is %v, want %q", err, tc.want)
			}
			if got := errors.Is(err, ErrFull); got != tc.full {
				t.Errorf("errors.Is(%q, ErrFull) is %v", err, got)
			}
			if got := s.Writes(); tc.full && got != 4 || !tc.full && got != 0 {
				t.Errorf("%d writes counted", got)
			}
		})
	}
}

// putMany stops at the first error.
func putMany(n int, put func(i int) error) error {
	for i := range n {
		if err := put(i); err != nil {
			return err
		}
	}
	return nil
}

func TestAnEntryOfAFullMapCanBeReplaced(t *testing.T) {
	s := newSet(t, smallSizes())
	for i := range uint16(4) {
		if err := s.Frontends().Put(Frontend{web.Addr, 80 + i, TCP}, Service{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Frontends().Put(web, Service{ServicePort: 5}); err != nil {
		t.Fatal(err)
	}
	all, err := s.Frontends().All()
	if err != nil {
		t.Fatal(err)
	}
	if got := all[web].ServicePort; got != 5 || len(all) != 4 {
		t.Errorf("service port %d of %d frontends", got, len(all))
	}
}

func TestAFreedBackendIsNotRead(t *testing.T) {
	s := newSet(t, smallSizes())
	fill(t, s)
	if err := s.Backends().Put(3, Backend{Generation: 1}); err != nil {
		t.Fatal(err)
	}
	all, err := s.Backends().All()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := all[3]; ok || len(all) != 1 {
		t.Errorf("read %v", all)
	}
}

func TestATableIsReadByTheDatapathAsItWasWritten(t *testing.T) {
	s := newSet(t, smallSizes())
	if err := s.Slots().Write(Table{61, 3}, []BackendID{1, 1 << 30, 3}); err != nil {
		t.Fatal(err)
	}
	for i, want := range map[uint32]uint32{60: 0, 61: 1, 62: 1 << 30, 63: 3} {
		var got uint32
		if err := s.maps[bpf.LayoutMapSlots].Lookup(i, &got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("slot %d is %d, want %d", i, got, want)
		}
	}
	if _, err := s.Slots().Read(Table{62, 3}); err == nil {
		t.Error("read beyond the end")
	}
}

func TestCountersAreSummedOverCPUsByHookAndVerdict(t *testing.T) {
	s := newSet(t, smallSizes())
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		t.Fatal(err)
	}
	put := func(h bpf.LayoutHook, verdict uint32, perCPU uint64) {
		t.Helper()
		values := make([]uint64, cpus)
		for i := range values {
			values[i] = perCPU
		}
		if err := s.maps[bpf.LayoutMapCounters].Put(uint32(h)*64+verdict, values); err != nil {
			t.Fatal(err)
		}
	}
	put(bpf.LayoutHookHOOK_TC_INGRESS, uint32(bpf.LayoutVerdictVERDICT_TO_LOCAL), 2)
	put(bpf.LayoutHookHOOK_TC_EGRESS, 63, 1)
	got, err := s.Counters().All()
	if err != nil {
		t.Fatal(err)
	}
	want := map[Hook]map[Verdict]uint64{}
	for hook := range HookCount {
		want[hook] = map[Verdict]uint64{}
		for v := VerdictNotIP; v < VerdictCount; v++ {
			want[hook][v] = 0
		}
	}
	want[HookTCIngress][VerdictToLocal] = 2 * uint64(cpus)
	want[HookTCEgress][63] = uint64(cpus)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestStatsOfBackendsAreSummedOverCPUs(t *testing.T) {
	s := newSet(t, smallSizes())
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		t.Fatal(err)
	}
	values := make([]bpf.LayoutBackendCounts, cpus)
	for i := range values {
		values[i] = bpf.LayoutBackendCounts{Opened: 1, RxBytes: 10}
		values[i].Handshake[19] = 1
	}
	if err := s.maps[bpf.LayoutMapBackendStats].Put(uint32(7), values); err != nil {
		t.Fatal(err)
	}
	n := uint64(cpus)
	want := BackendCounts{Opened: n, RxBytes: 10 * n}
	want.Handshake[19] = n
	got, err := s.Stats().All([]BackendID{0, 7})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[BackendID]BackendCounts{0: {}, 7: want}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := s.Stats().Get(8); err == nil {
		t.Error("stats of a backend beyond the last")
	}
}

func TestFlowsAreLookedUpAndDeletedByKey(t *testing.T) {
	s := newSet(t, smallSizes())
	withoutSince := webFlow
	withoutSince.Since = 0
	for _, tc := range []struct {
		name  string
		flows Flows
		want  Flow
	}{
		{"flows", s.Flows(), withoutSince},
		{"half-open flows keep when they began", s.HalfOpen(), webFlow},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, ok, err := tc.flows.Lookup(webFlowKey); ok || err != nil {
				t.Errorf("found %v before it was put, error %v", ok, err)
			}
			if err := tc.flows.Put(webFlowKey, webFlow); err != nil {
				t.Fatal(err)
			}
			got, ok, err := tc.flows.Lookup(webFlowKey)
			if err != nil || !ok || got != tc.want {
				t.Errorf("got %v, %v, %v; want %v", got, ok, err, tc.want)
			}
			for range 2 {
				if err := tc.flows.Delete(webFlowKey); err != nil {
					t.Error(err)
				}
			}
			if _, ok, err := tc.flows.Lookup(webFlowKey); ok || err != nil {
				t.Errorf("found %v after it was deleted, error %v", ok, err)
			}
		})
	}
}

func TestAFlowThatNoMapCanHaveIsAbsent(t *testing.T) {
	s := newSet(t, smallSizes())
	if err := s.Flows().Put(webFlowKey, webFlow); err != nil {
		t.Fatal(err)
	}
	mapped := webFlowKey
	mapped.Src = netip.AddrPortFrom(netip.AddrFrom16(mapped.Src.Addr().As16()), 4000)
	if _, ok, err := s.Flows().Lookup(mapped); ok || err != nil {
		t.Errorf("found %v, error %v", ok, err)
	}
	if err := s.Flows().Delete(mapped); err != nil {
		t.Error(err)
	}
	if _, ok, _ := s.Flows().Lookup(webFlowKey); !ok {
		t.Error("another flow was deleted")
	}
}

func TestTheCounterpartOfACounterpartIsTheFlow(t *testing.T) {
	other := Counterpart(webFlowKey, webFlow)
	want := FlowKey{Src: webFlow.Dst, Dst: webFlow.Src, Proto: TCP}
	if other != want {
		t.Errorf("counterpart is %s, want %s", other, want)
	}
	reply := Flow{Src: webFlowKey.Dst, Dst: webFlowKey.Src}
	if got := Counterpart(other, reply); got != webFlowKey {
		t.Errorf("counterpart of the counterpart is %s, want %s", got, webFlowKey)
	}
}

func ExampleTable_String() {
	fmt.Println(Table{Offset: 251, Length: 13}, Table{Offset: 251})
	// Output: 251+13 -
}
