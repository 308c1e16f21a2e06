package maps_test

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/maps/mapstest"
)

const golden = `frontend 10.96.0.1:53/UDP service=kube-system/dns:/UDP policy=cluster cluster=- local=- no-endpoints
frontend 10.96.0.1:80/TCP service=default/web:http/TCP policy=cluster cluster=0+5 local=-
frontend 192.0.2.9:30080/TCP service=default/web:http/TCP policy=local cluster=0+5 local=10+1 restricted affinity=3h0m0s
frontend [fd00:96::1]:80/TCP service=#9 policy=internal-local cluster=5+2 local=-
service-port 1 default/web:http/TCP
service-port 2 kube-system/dns:/UDP
backend 3 10.0.1.7:8080 state=active local gen=1 service=default/web:http/TCP in=cluster,local
backend 5 10.0.2.5:8080 state=draining remote gen=4 service=default/web:http/TCP in=cluster unserving
backend 10 [fd00::7]:8080 state=gone remote gen=2 service=#9 in=-
table 0+5 3:3 5:2
table 5+2 10:2
table 10+1 3:1
source-range 192.0.2.0/24 service=default/web:http/TCP
service-cidr 10.96.0.0/12
secured fd00:244:2::/64
address 10.96.0.1 cluster-ip
address 192.0.2.9 external,node
flow TCP 10.0.1.7:8080 > 192.0.2.1:4000 becomes 10.96.0.1:80 > 192.0.2.1:4000 backend=3 gen=1 flags=reverse,fin
flow TCP 192.0.2.1:4000 > 10.96.0.1:80 becomes 192.0.2.1:4000 > 10.0.1.7:8080 backend=3 gen=1 flags=-
flow UDP 192.0.2.1:53 > 10.96.0.1:53 becomes 192.0.2.1:53 > 10.0.3.1:53 backend=4 gen=0 flags=remote
half-open TCP [2001:db8::1]:4000 > [fd00:96::1]:80 becomes [2001:db8::1]:4000 > [fd00::7]:8080 backend=10 gen=2 flags=-
runtime snat4=10.0.0.1 snat6=- services4=10.96.0.0/12 services6=-
device 2 xdp-tx
device 10 lower=2 vlan=100 xdp-tx
device 11
station 2 02:00:00:00:00:01 device=2
station 2.100 02:00:00:00:00:01 device=10
`

type flowPutter interface {
	Put(maps.FlowKey, maps.Flow) error
}

type addressPutter interface {
	Put(netip.Addr, maps.AddressFlags) error
}

// target is what the golden content is written into: a Set or a Fake.
type target struct {
	frontends interface {
		Put(maps.Frontend, maps.Service) error
	}
	servicePorts interface {
		Put(maps.ServicePortID, maps.ServicePort) error
	}
	backends interface {
		Put(maps.BackendID, maps.Backend) error
	}
	slots interface {
		Write(maps.Table, []maps.BackendID) error
	}
	runtime interface{ Put(maps.Runtime) error }
	devices interface {
		Put(uint32, maps.Device) error
	}
	stations interface {
		Put(maps.Station, uint32) error
	}
	ranges          interface{ Put(maps.SourceRange) error }
	services        interface{ Put(netip.Prefix) error }
	secured         interface{ Put(netip.Prefix) error }
	addresses       func(maps.AddressFlags) addressPutter
	flows, halfOpen flowPutter
}

func TestTheSameContentIsTheSameText(t *testing.T) {
	fake := mapstest.New(maps.DefaultSizes())
	fillGolden(t, target{
		fake.Frontends(), fake.ServicePorts(), fake.Backends(), fake.Slots(),
		fake.Runtime(), fake.Devices(), fake.Stations(), fake.SourceRanges(), fake.ServiceCIDRs(), fake.Secured(),
		func(own maps.AddressFlags) addressPutter { return fake.Addresses(own) }, fake.Flows(), fake.HalfOpen(),
	})
	t.Run("a fake", func(t *testing.T) { wantDump(t, fake) })
	t.Run("a set", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root to create BPF maps")
		}
		set, err := maps.Create(maps.Sizes{Frontends: 8, ServicePorts: 8, Backends: 16, Slots: 16, Flows: 1024, HalfOpen: 1024, Closed: 1024, Affinity: 64, SourceRanges: 4})
		if err != nil {
			t.Fatal(err)
		}
		defer set.Close()
		fillGolden(t, target{
			set.Frontends(), set.ServicePorts(), set.Backends(), set.Slots(),
			set.Runtime(), set.Devices(), set.Stations(), set.SourceRanges(), set.ServiceCIDRs(), set.Secured(),
			func(own maps.AddressFlags) addressPutter { return set.Addresses(own) }, set.Flows(), set.HalfOpen(),
		})
		wantDump(t, set)
	})
}

func wantDump(t *testing.T, r maps.Reader) {
	t.Helper()
	var out bytes.Buffer
	if err := maps.Dump(&out, r); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(golden, out.String()); diff != "" {
		t.Error(diff)
	}
}

func fillGolden(t *testing.T, s target) {
	t.Helper()
	addr, ap := netip.MustParseAddr, netip.MustParseAddrPort
	dns := maps.Frontend{Addr: addr("10.96.0.1"), Port: 53, Proto: maps.UDP}
	web := maps.Frontend{Addr: addr("10.96.0.1"), Port: 80, Proto: maps.TCP}
	web6 := maps.Frontend{Addr: addr("fd00:96::1"), Port: 80, Proto: maps.TCP}
	node := maps.Frontend{Addr: addr("192.0.2.9"), Port: 30080, Proto: maps.TCP}
	a, b, c := maps.Table{Length: 5}, maps.Table{Offset: 5, Length: 2}, maps.Table{Offset: 10, Length: 1}
	client, client6 := ap("192.0.2.1:4000"), ap("[2001:db8::1]:4000")
	vip, vip6, pod, pod6 := ap("10.96.0.1:80"), ap("[fd00:96::1]:80"), ap("10.0.1.7:8080"), ap("[fd00::7]:8080")
	err := errors.Join(
		s.servicePorts.Put(1, maps.ServicePort{Namespace: "default", Service: "web", Port: "http", Proto: maps.TCP}),
		s.servicePorts.Put(2, maps.ServicePort{Namespace: "kube-system", Service: "dns", Proto: maps.UDP}),
		s.backends.Put(10, maps.Backend{Addr: pod6, State: maps.Gone, Generation: 2, ServicePort: 9}),
		s.backends.Put(3, maps.Backend{Addr: pod, State: maps.Active, Local: true, InCluster: true, InLocal: true, Generation: 1, ServicePort: 1}),
		s.backends.Put(5, maps.Backend{Addr: ap("10.0.2.5:8080"), State: maps.Draining, InCluster: true, Unserving: true, Generation: 4, ServicePort: 1}),
		s.backends.Put(6, maps.Backend{}),
		s.slots.Write(a, []maps.BackendID{5, 3, 3, 5, 3}),
		s.slots.Write(b, []maps.BackendID{10, 10}),
		s.slots.Write(c, []maps.BackendID{3}),
		s.frontends.Put(web6, maps.Service{ServicePort: 9, InternalLocal: true, HasEndpoints: true, Cluster: b}),
		s.frontends.Put(node, maps.Service{
			ServicePort: 1, ExternalLocal: true, Restricted: true, HasEndpoints: true, Affinity: 3 * time.Hour,
			Cluster: a, Local: c,
		}),
		s.frontends.Put(web, maps.Service{ServicePort: 1, HasEndpoints: true, Cluster: a}),
		s.frontends.Put(dns, maps.Service{ServicePort: 2}),
		s.runtime.Put(maps.Runtime{SNAT4: addr("10.0.0.1"), Services4: netip.MustParsePrefix("10.96.0.0/12")}),
		s.devices.Put(11, maps.Device{}),
		s.devices.Put(10, maps.Device{Lower: 2, VLAN: 100, XDPTx: true}),
		s.devices.Put(2, maps.Device{XDPTx: true}),
		s.stations.Put(maps.Station{Ifindex: 2, VLAN: 100, MAC: maps.MAC{2, 0, 0, 0, 0, 1}}, 10),
		s.stations.Put(maps.Station{Ifindex: 2, MAC: maps.MAC{2, 0, 0, 0, 0, 1}}, 2),
		s.ranges.Put(maps.SourceRange{ServicePort: 1, Prefix: netip.MustParsePrefix("192.0.2.0/24")}),
		s.services.Put(netip.MustParsePrefix("10.96.0.0/12")),
		s.secured.Put(netip.MustParsePrefix("fd00:244:2::/64")),
		s.addresses(maps.NodeAddress).Put(node.Addr, maps.AddressNode),
		s.addresses(maps.ServiceAddress).Put(node.Addr, maps.AddressExternal),
		s.addresses(maps.ServiceAddress).Put(web.Addr, maps.AddressClusterIP),
		s.flows.Put(maps.FlowKey{Src: ap("192.0.2.1:53"), Dst: ap("10.96.0.1:53"), Proto: maps.UDP},
			maps.Flow{Src: ap("192.0.2.1:53"), Dst: ap("10.0.3.1:53"), Backend: 4, Flags: maps.FlowRemote, Seen: 99}),
		s.flows.Put(maps.FlowKey{Src: client, Dst: vip, Proto: maps.TCP},
			maps.Flow{Src: client, Dst: pod, Backend: 3, Generation: 1, Seen: 1}),
		s.flows.Put(maps.FlowKey{Src: pod, Dst: client, Proto: maps.TCP},
			maps.Flow{Src: vip, Dst: client, Backend: 3, Generation: 1, Flags: maps.FlowReverse | maps.FlowFIN}),
		s.halfOpen.Put(maps.FlowKey{Src: client6, Dst: vip6, Proto: maps.TCP},
			maps.Flow{Src: client6, Dst: pod6, Backend: 10, Generation: 2, Since: time.Hour}),
	)
	if err != nil {
		t.Fatal(err)
	}
}

// brokenReader fails in one of its methods.
type brokenReader struct {
	*mapstest.Fake
	contents, flows, halfOpen, closed error
}

func (r brokenReader) Contents() (maps.Contents, error) { return maps.Contents{}, r.contents }

func (r brokenReader) EachFlow(func(maps.FlowKey, maps.Flow) bool) error { return r.flows }

func (r brokenReader) EachHalfOpen(func(maps.FlowKey, maps.Flow) bool) error { return r.halfOpen }

func (r brokenReader) EachClosed(func(maps.FlowKey, maps.Flow) bool) error { return r.closed }

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func TestADumpThatFailsSaysWhy(t *testing.T) {
	broken := errors.New("broken")
	for name, r := range map[string]brokenReader{
		"contents": {contents: broken}, "flows": {flows: broken}, "half-open flows": {halfOpen: broken}, "closed flows": {closed: broken},
	} {
		var out strings.Builder
		if err := maps.Dump(&out, r); !errors.Is(err, broken) || out.Len() > 0 {
			t.Errorf("reading %s: error %v after %q", name, err, out.String())
		}
	}
	if err := maps.Dump(brokenWriter{broken}, brokenReader{}); !errors.Is(err, broken) {
		t.Errorf("writing: error %v", err)
	}
}

func TestTheDumpShowsWhatSocketsHave(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to create BPF maps")
	}
	set, err := maps.Create(maps.Sizes{Frontends: 8, ServicePorts: 8, Backends: 16, Slots: 16, Flows: 1024, HalfOpen: 1024, Closed: 1024, Affinity: 64, SourceRanges: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	vip, pod := netip.MustParseAddrPort("10.96.0.1:53"), netip.MustParseAddrPort("10.0.1.7:5353")
	err = errors.Join(
		set.Sockets().Put(maps.SocketKey{Cookie: 7, Addr: pod, Proto: maps.UDP, Way: maps.SocketBackend},
			maps.SocketPeer{Addr: vip, Backend: 3, Generation: 1, Netns: 2}),
		set.Sockets().Put(maps.SocketKey{Cookie: 7, Addr: vip, Proto: maps.UDP, Way: maps.SocketDialled},
			maps.SocketPeer{Addr: pod, Backend: 3, Generation: 1, Netns: 2}),
	)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := maps.Dump(&out, set); err != nil {
		t.Fatal(err)
	}
	want := `socket 7 UDP 10.96.0.1:53 connects-to 10.0.1.7:5353 backend=3 gen=1 netns=2
socket 7 UDP 10.0.1.7:5353 shown-as 10.96.0.1:53 backend=3 gen=1 netns=2
runtime snat4=- snat6=- services4=- services6=-
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}
