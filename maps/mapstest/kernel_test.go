package mapstest_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/maps/mapstest"
)

var compareAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// flowMap is the method set of maps.Flows and mapstest.Flows.
type flowMap interface {
	Put(maps.FlowKey, maps.Flow) error
	Delete(maps.FlowKey) error
	Lookup(maps.FlowKey) (maps.Flow, bool, error)
	Each(func(maps.FlowKey, maps.Flow) bool) error
}

// addressMap is the method set of maps.Addresses and mapstest.Addresses.
type addressMap interface {
	Put(netip.Addr, maps.AddressFlags) error
	Delete(netip.Addr) error
	All() (map[netip.Addr]maps.AddressFlags, error)
}

// access is the accessors of a Set or a Fake by their method sets, which have
// to be the same.
type access struct {
	frontends interface {
		Put(maps.Frontend, maps.Service) error
		Delete(maps.Frontend) error
		All() (map[maps.Frontend]maps.Service, error)
	}
	servicePorts interface {
		Put(maps.ServicePortID, maps.ServicePort) error
		Delete(maps.ServicePortID) error
		All() (map[maps.ServicePortID]maps.ServicePort, error)
	}
	backends interface {
		Put(maps.BackendID, maps.Backend) error
		All() (map[maps.BackendID]maps.Backend, error)
		Capacity() uint32
	}
	slots interface {
		Write(maps.Table, []maps.BackendID) error
		Read(maps.Table) ([]maps.BackendID, error)
		Capacity() uint32
	}
	runtime interface {
		Get() (maps.Runtime, error)
		Put(maps.Runtime) error
	}
	devices interface {
		Put(uint32, maps.Device) error
		Delete(uint32) error
		All() (map[uint32]maps.Device, error)
	}
	stations interface {
		Put(maps.Station, uint32) error
		Delete(maps.Station) error
		All() (map[maps.Station]uint32, error)
	}
	ranges interface {
		Put(maps.SourceRange) error
		Delete(maps.SourceRange) error
		All() (map[maps.SourceRange]struct{}, error)
	}
	services interface {
		Put(netip.Prefix) error
		Delete(netip.Prefix) error
		All() (map[netip.Prefix]struct{}, error)
	}
	svcAddrs, nodeAddrs addressMap
	flows, halfOpen     flowMap
	reader              maps.Reader
	writes              func() uint64
}

func ofFake(f *mapstest.Fake) access {
	return access{f.Frontends(), f.ServicePorts(), f.Backends(), f.Slots(), f.Runtime(), f.Devices(), f.Stations(),
		f.SourceRanges(), f.ServiceCIDRs(),
		f.Addresses(maps.ServiceAddress), f.Addresses(maps.NodeAddress), f.Flows(), f.HalfOpen(), f, f.Writes}
}

func ofSet(s *maps.Set) access {
	return access{s.Frontends(), s.ServicePorts(), s.Backends(), s.Slots(), s.Runtime(), s.Devices(), s.Stations(),
		s.SourceRanges(), s.ServiceCIDRs(),
		s.Addresses(maps.ServiceAddress), s.Addresses(maps.NodeAddress), s.Flows(), s.HalfOpen(), s, s.Writes}
}

// step is one operation, with random arguments chosen beforehand, and what it
// returned.
type step struct {
	name string
	do   func(a access) (any, error)
}

// The arguments are mostly few, so that steps meet each other's entries, and
// sometimes what must be refused.
func randomStep(r *rand.Rand) step {
	id, n := maps.BackendID(r.IntN(10)), r.IntN(6)
	front := maps.Frontend{Addr: anyAddr(r), Port: uint16(r.IntN(3)), Proto: maps.TCP}
	table := maps.Table{Offset: uint32(r.IntN(70)), Length: uint32(r.IntN(8))}
	key := maps.FlowKey{Src: netip.AddrPortFrom(anyAddr(r), 1), Dst: netip.AddrPortFrom(anyAddr(r), 2), Proto: maps.UDP}
	flow := maps.Flow{Src: key.Dst, Dst: key.Src, Backend: id, Since: 5}
	prefix := netip.PrefixFrom(anyAddr(r), r.IntN(40)).Masked()
	if r.IntN(8) == 0 {
		prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), 24)
	}
	rng := maps.SourceRange{ServicePort: maps.ServicePortID(n % 2), Prefix: prefix}
	flags := maps.AddressFlags(r.IntN(9))
	switch r.IntN(20) {
	case 0, 1, 2:
		svc := maps.Service{ServicePort: maps.ServicePortID(n), Cluster: table}
		return step{fmt.Sprint("put frontend ", front, svc), func(a access) (any, error) { return nil, a.frontends.Put(front, svc) }}
	case 3:
		return step{fmt.Sprint("delete frontend ", front), func(a access) (any, error) { return nil, a.frontends.Delete(front) }}
	case 4, 5:
		sp := maps.ServicePort{Namespace: strings.Repeat("n", 60+r.IntN(5)), Service: "web", Proto: maps.UDP}
		return step{fmt.Sprint("put service port ", n, sp), func(a access) (any, error) { return nil, a.servicePorts.Put(maps.ServicePortID(n), sp) }}
	case 6:
		return step{fmt.Sprint("delete service port ", n), func(a access) (any, error) { return nil, a.servicePorts.Delete(maps.ServicePortID(n)) }}
	case 7:
		b := maps.Backend{Addr: netip.AddrPortFrom(anyAddr(r), 80), State: maps.State(r.IntN(5)), Generation: uint32(n)}
		return step{fmt.Sprint("put backend ", id, b), func(a access) (any, error) { return nil, a.backends.Put(id, b) }}
	case 8:
		slots := make([]maps.BackendID, int(table.Length)+r.IntN(10)/9)
		for i := range slots {
			slots[i] = id
		}
		return step{fmt.Sprint("write table ", table, slots), func(a access) (any, error) { return nil, a.slots.Write(table, slots) }}
	case 9:
		return step{fmt.Sprint("read table ", table), func(a access) (any, error) { return a.slots.Read(table) }}
	case 10:
		values := maps.Runtime{SNAT4: anyAddr(r), SNAT6: anyAddr(r), HostNetns: r.Uint64(), Services4: prefix}
		return step{fmt.Sprint("put runtime ", values), func(a access) (any, error) { return nil, a.runtime.Put(values) }}
	case 11:
		d := maps.Device{VLAN: uint16(4090 + n), XDPTx: n%2 == 0}
		return step{fmt.Sprint("put device ", n, d), func(a access) (any, error) {
			if d.VLAN == 4090 {
				return nil, a.devices.Delete(uint32(id))
			}
			return nil, errors.Join(a.devices.Put(uint32(id), d), a.stations.Put(maps.Station{VLAN: d.VLAN, MAC: maps.MAC{byte(id)}}, uint32(id)))
		}}
	case 12:
		return step{fmt.Sprint("put flow ", key, flow), func(a access) (any, error) {
			return nil, errors.Join(a.flows.Put(key, flow), a.halfOpen.Put(key, flow))
		}}
	case 13, 14:
		return step{fmt.Sprint("put ranges ", rng), func(a access) (any, error) {
			return nil, errors.Join(a.ranges.Put(rng), a.services.Put(rng.Prefix))
		}}
	case 15, 16:
		return step{fmt.Sprint("delete ranges ", rng), func(a access) (any, error) {
			return nil, errors.Join(a.ranges.Delete(rng), a.services.Delete(rng.Prefix))
		}}
	case 17:
		return step{fmt.Sprint("put address ", front.Addr, flags), func(a access) (any, error) {
			return nil, errors.Join(a.svcAddrs.Put(front.Addr, flags), a.nodeAddrs.Put(key.Src.Addr(), flags&maps.AddressNode))
		}}
	case 18:
		return step{fmt.Sprint("delete address ", front.Addr), func(a access) (any, error) {
			if flags&1 != 0 {
				return nil, a.svcAddrs.Delete(front.Addr)
			}
			return nil, a.nodeAddrs.Delete(front.Addr)
		}}
	default:
		return step{fmt.Sprint("look up and delete flow ", key), func(a access) (any, error) {
			f, ok, err := a.halfOpen.Lookup(key)
			return fmt.Sprint(f, ok), errors.Join(err, a.halfOpen.Delete(key))
		}}
	}
}

// anyAddr is one of a few addresses, at times one that is refused.
func anyAddr(r *rand.Rand) netip.Addr {
	switch n := r.IntN(20); n {
	case 0:
		return netip.Addr{}
	case 1:
		return netip.MustParseAddr("::ffff:10.0.0.1")
	case 2:
		return netip.MustParseAddr("fe80::1%eth0")
	case 3, 4, 5, 6, 7:
		return netip.MustParseAddr("fd00::1")
	default:
		return netip.AddrFrom4([4]byte{10, 0, 0, byte(n % 3)})
	}
}

func TestAFakeBehavesAsTheKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to create BPF maps")
	}
	small := maps.Sizes{Frontends: 4, ServicePorts: 4, Backends: 8, Slots: 64, Flows: 1024, HalfOpen: 1024, Closed: 1024, Affinity: 64, SourceRanges: 4}
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			set, err := maps.Create(small)
			if err != nil {
				t.Fatal(err)
			}
			defer set.Close()
			compare(t, ofFake(mapstest.New(small)), ofSet(set), rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

// compare does the same steps to both and wants the same of both.
func compare(t *testing.T, fake, kernel access, r *rand.Rand) {
	t.Helper()
	for range 400 {
		s := randomStep(r)
		wantValue, want := s.do(kernel)
		gotValue, got := s.do(fake)
		if !sameError(got, want) {
			t.Fatalf("%s: error of the fake %v, of the kernel %v", s.name, got, want)
		}
		if diff := cmp.Diff(wantValue, gotValue, compareAddrs); diff != "" {
			t.Fatalf("%s: kernel and fake:\n%s", s.name, diff)
		}
		if g, w := fake.writes(), kernel.writes(); g != w {
			t.Fatalf("%s: %d writes of the fake, %d of the kernel", s.name, g, w)
		}
	}
	if diff := cmp.Diff(readAll(t, kernel), readAll(t, fake), compareAddrs); diff != "" {
		t.Errorf("kernel and fake:\n%s", diff)
	}
}

// sameError reports whether both are nil, or the kernel's error says what the
// fake's does, and maybe more.
func sameError(fake, kernel error) bool {
	if fake == nil || kernel == nil {
		return fake == nil && kernel == nil
	}
	return strings.HasPrefix(kernel.Error(), fake.Error()) &&
		errors.Is(fake, maps.ErrFull) == errors.Is(kernel, maps.ErrFull)
}

// everything is what All, Get, Capacity and Each of all accessors return, and
// Contents.
type everything struct {
	Frontends       map[maps.Frontend]maps.Service
	ServicePorts    map[maps.ServicePortID]maps.ServicePort
	Backends        map[maps.BackendID]maps.Backend
	Runtime         maps.Runtime
	Devices         map[uint32]maps.Device
	Stations        map[maps.Station]uint32
	Ranges          map[maps.SourceRange]struct{}
	Services        map[netip.Prefix]struct{}
	Addrs, Nodes    map[netip.Addr]maps.AddressFlags
	Flows, HalfOpen map[maps.FlowKey]maps.Flow
	Capacity        [2]uint32
	Contents        maps.Contents
	ContentsFailed  bool
}

func readAll(t *testing.T, a access) everything {
	t.Helper()
	out := everything{
		Capacity: [2]uint32{a.backends.Capacity(), a.slots.Capacity()},
		Flows:    map[maps.FlowKey]maps.Flow{}, HalfOpen: map[maps.FlowKey]maps.Flow{},
	}
	var errs [12]error
	out.Frontends, errs[0] = a.frontends.All()
	out.ServicePorts, errs[1] = a.servicePorts.All()
	out.Backends, errs[2] = a.backends.All()
	out.Runtime, errs[3] = a.runtime.Get()
	out.Devices, errs[4] = a.devices.All()
	errs[5] = a.flows.Each(func(k maps.FlowKey, f maps.Flow) bool { out.Flows[k] = f; return true })
	errs[6] = a.reader.EachHalfOpen(func(k maps.FlowKey, f maps.Flow) bool { out.HalfOpen[k] = f; return true })
	out.Ranges, errs[7] = a.ranges.All()
	out.Services, errs[8] = a.services.All()
	out.Addrs, errs[9] = a.svcAddrs.All()
	out.Nodes, errs[10] = a.nodeAddrs.All()
	out.Stations, errs[11] = a.stations.All()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	// A frontend may point beyond the slots here.
	var err error
	out.Contents, err = a.reader.Contents()
	out.ContentsFailed = err != nil
	return out
}
