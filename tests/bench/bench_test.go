package bench

import (
	"encoding/binary"
	"flag"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

var (
	rounds  = flag.Int("rounds", 7, "interleaved rounds; the least of all counts")
	packets = flag.Int("packets", 500_000, "packets per case and round")
	only    = flag.String("only", "", "measure only the cases whose name matches this regular expression, and what they are divided by")
)

// measure is one row: a program behind the harness, on one kind of packet.
type measure struct {
	r     *rig.Rig
	name  string
	hook  maps.Hook
	prog  *ebpf.Program
	in    packet.Spec
	flows uint32
	reply bool   // vary the destination: replies to many clients
	floor string // row whose own cost this one is divided by
	setUp func() error
	want  maps.Verdict // checked once; 0: a floor program
	best  uint32       // ns per packet; 0: not run yet
}

func BenchmarkPackets(b *testing.B) {
	s := newSuite(b)
	for range *rounds {
		for _, m := range s.rows {
			s.run(b, m)
		}
	}
	for _, m := range s.rows {
		b.Run(m.name, func(b *testing.B) {
			for range b.N {
			}
			own := s.own(m)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(m.best), "ns/pkt")
			b.ReportMetric(own, "own-ns/pkt")
			if f := s.row(m.floor); f != nil {
				b.ReportMetric(own/s.own(f), "x-floor")
			}
		})
	}
}

// suite is the rigs, the harness, and all rows. A big flows map costs every
// lookup its cache misses, so only the rows with a million flows get one.
type suite struct {
	r     *rig.Rig
	big   *rig.Rig
	wide  *rig.Rig       // has a service with 10 000 backends
	first maps.BackendID // of those
	floor *ebpf.Collection
	rows  []*measure
}

func (s *suite) row(name string) *measure {
	for _, m := range s.rows {
		if m.name == name {
			return m
		}
	}
	return nil
}

// own is what a row costs beyond the harness of its hook.
func (s *suite) own(m *measure) float64 {
	harness := "harness/xdp"
	if m.hook != maps.HookXDP {
		harness = "harness/tc"
	}
	return float64(m.best) - float64(s.row(harness).best)
}

func newSuite(b *testing.B) *suite {
	r := rig.New(b, rig.Config{Sizes: maps.Sizes{Flows: 1 << 17, HalfOpen: 1 << 14}})
	big := rig.New(b, rig.Config{Sizes: maps.Sizes{Flows: 1 << 22, HalfOpen: 1 << 14}})
	wide := rig.New(b, rig.Config{Sizes: maps.Sizes{Flows: 1 << 17, HalfOpen: 1 << 14, Backends: 1 << 14}})
	spec, err := LoadFloor()
	if err != nil {
		b.Fatal(err)
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replacements(r, spec)})
	if err != nil {
		b.Fatalf("%+v", err)
	}
	b.Cleanup(coll.Close)
	s := &suite{r: r, big: big, wide: wide, floor: coll}
	if err := s.fillIdeals(10_000); err != nil {
		b.Fatal(err)
	}
	addServices(b, r)
	addServices(b, big)
	addServices(b, wide)
	s.first = addCrowd(b, wide)
	pattern, err := regexp.Compile(*only)
	if err != nil {
		b.Fatalf("-only: %v", err)
	}
	ours := slices.DeleteFunc(s.ours(), func(m *measure) bool { return !pattern.MatchString(m.name) })
	s.rows = append(s.floors(), ours...)
	return s
}

func replacements(r *rig.Rig, spec *ebpf.CollectionSpec) map[string]*ebpf.Map {
	use := make(map[string]*ebpf.Map)
	for name, m := range r.Set.Replacements() {
		if ms, ok := spec.Maps[name]; ok {
			ms.MaxEntries = m.MaxEntries()
			use[name] = m
		}
	}
	return use
}

// Client addresses end in the two bytes, and ports are the numbers, that
// next_packet in floor.c gives flow i.
func client(v4 bool, i int) netip.AddrPort {
	port := uint16(10000 + i&0x3fff)
	if v4 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(i >> 22), byte(i >> 14)}), port)
	}
	a := netip.MustParseAddr("2001:db8:2::").As16()
	a[14], a[15] = byte(i>>22), byte(i>>14)
	return netip.AddrPortFrom(netip.AddrFrom16(a), port)
}

var (
	vip = map[bool]netip.AddrPort{true: netip.MustParseAddrPort("203.0.113.10:80"), false: netip.MustParseAddrPort("[2001:db8:113::10]:80")}
	pod = map[bool]netip.AddrPort{true: netip.MustParseAddrPort("10.244.1.7:8080"), false: netip.MustParseAddrPort("[fd00:244:1::7]:8080")}
	far = map[bool]netip.AddrPort{true: netip.MustParseAddrPort("10.244.2.7:8080"), false: netip.MustParseAddrPort("[fd00:244:2::7]:8080")}
)

// podsPort is where only pods of the node have flows; no new ones are begun.
const podsPort = 83

// on returns a with another port: one service per kind of row.
func on(a netip.AddrPort, port uint16) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), port) }

// addServices sets r up as an agent does in a usual cluster: ClusterIPs are in
// one range of each family.
func addServices(b *testing.B, r *rig.Rig) {
	rt, err := r.Set.Runtime().Get()
	if err != nil {
		b.Fatal(err)
	}
	rt.Services4, rt.Services6 = netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("fd00:96::/108")
	if err := r.Set.Runtime().Put(rt); err != nil {
		b.Fatal(err)
	}
	// Each backend has its own source ports: enough of them for new flows.
	some := make([]maps.Backend, 64)
	for i := range some {
		some[i] = rig.Backend(fmt.Sprintf("10.244.2.%d:8082", i+1), false)
	}
	r.AddService(b, maps.Frontend{Addr: vip[true].Addr(), Port: 82, Proto: maps.TCP}, some...)
	for _, v4 := range []bool{true, false} {
		for _, proto := range []maps.Proto{maps.TCP, maps.UDP, maps.SCTP} {
			for _, x := range []struct {
				port    uint16
				backend maps.Backend
			}{
				{80, rig.Backend(far[v4].String(), false)},
				{81, rig.Backend(pod[v4].String(), true)},
			} {
				r.AddService(b, maps.Frontend{Addr: vip[v4].Addr(), Port: x.port, Proto: proto}, x.backend)
			}
		}
	}
}

func spec(src, dst netip.AddrPort, proto maps.Proto, flags packet.Flags) packet.Spec {
	return packet.Spec{
		SrcMAC: rig.GatewayMAC, DstMAC: rig.NodeMAC, Src: src, Dst: dst, Proto: proto, Flags: flags,
		Seq: 1, Ack: 1, Payload: make([]byte, 64),
	}
}

func (s *suite) floors() []*measure {
	row := func(name, prog string) *measure {
		return &measure{name: name, r: s.r, prog: s.floor.Programs[prog], flows: 10_000, in: spec(client(true, 0), vip[true], maps.TCP, packet.ACK)}
	}
	two := row("floor/parse+2-misses", "floor_two_misses")
	two.in.Dst = on(vip[true], 9)
	one := row("floor/ideal-nat/1", "floor_ideal4")
	one.flows = 1
	fresh := row("floor/ideal-new-flow", "floor_ideal_new")
	fresh.flows = 1 << 22
	tc := row("harness/tc", "floor_pass_tc")
	tc.hook = maps.HookTCIngress
	return []*measure{
		row("harness/xdp", "floor_pass"), tc, row("floor/parse", "floor_parse"), two,
		one, row("floor/ideal-nat/10k", "floor_ideal4"), row("floor/ideal-nat-v4-mapped/10k", "floor_ideal16"), fresh,
	}
}

func (s *suite) ours() []*measure {
	var rows []*measure
	for _, hook := range []maps.Hook{maps.HookXDP, maps.HookTCIngress} {
		for _, n := range []uint32{1, 10_000, 1_000_000} {
			floor := "floor/ideal-nat/10k"
			if n == 1 {
				floor = "floor/ideal-nat/1"
			}
			rows = append(rows, s.established(hook, true, maps.TCP, n, floor))
		}
		rows = append(rows,
			s.established(hook, false, maps.TCP, 10_000, "floor/ideal-nat/10k"),
			s.established(hook, true, maps.UDP, 10_000, "floor/ideal-nat/10k"),
			s.established(hook, true, maps.SCTP, 10_000, "floor/ideal-nat/10k"),
			s.newFlow(hook, 81, "local"), s.newFlow(hook, 82, "remote"), s.notService(hook),
			s.establishedWide(hook), s.newFlowWide(hook),
		)
	}
	return append(rows, s.replies(), s.leaving(), s.ofPod(),
		s.newFlow(maps.HookPodIngress, 81, "local"), s.newFlow(maps.HookPodIngress, 82, "remote"), s.notService(maps.HookPodIngress))
}

// ofPod are packets of a pod of this node to a backend elsewhere.
func (s *suite) ofPod() *measure {
	const n = 10_000
	m := s.established(maps.HookPodIngress, true, maps.TCP, n, "floor/ideal-nat/10k")
	m.in.Dst = on(vip[true], podsPort)
	m.setUp = func() error {
		for i := range n {
			c := client(true, i)
			f := maps.Flow{Src: c, Dst: far[true], Flags: maps.FlowRemote | maps.FlowPod}
			if err := put(s.r, maps.FlowKey{Src: c, Dst: m.in.Dst, Proto: maps.TCP}, f); err != nil {
				return err
			}
		}
		return nil
	}
	return m
}

func (s *suite) established(hook maps.Hook, v4 bool, proto maps.Proto, n uint32, floor string) *measure {
	family := map[bool]string{true: "v4", false: "v6"}[v4]
	r := s.r
	if n >= 1_000_000 {
		r = s.big
	}
	return &measure{
		r: r, name: fmt.Sprintf("%s/established-%s-%s/%s", hook, proto, family, count(n)),
		hook: hook, prog: r.Program(hook), flows: n, floor: floor, want: maps.VerdictToRemote,
		in:    spec(client(v4, 0), vip[v4], proto, packet.ACK),
		setUp: func() error { return fill(r, v4, proto, int(n)) },
	}
}

// establishedWide has each flow go to another backend.
func (s *suite) establishedWide(hook maps.Hook) *measure {
	m := s.established(hook, true, maps.TCP, crowd, "floor/ideal-nat/10k")
	m.name += "-to-10k-backends"
	m.r, m.prog, m.in.Dst = s.wide, s.wide.Program(hook), on(vip[true], crowdPort)
	m.setUp = func() error {
		for i := range crowd {
			c := client(true, i)
			f := maps.Flow{
				Src: netip.AddrPortFrom(rig.Node4, c.Port()), Dst: crowdBackend(i), Backend: s.first + maps.BackendID(i),
				Flags: maps.FlowRemote,
			}
			if err := put(s.wide, maps.FlowKey{Src: c, Dst: m.in.Dst, Proto: maps.TCP}, f); err != nil {
				return err
			}
		}
		return nil
	}
	return m
}

// newFlowWide has each flow given another backend.
func (s *suite) newFlowWide(hook maps.Hook) *measure {
	m := s.newFlow(hook, crowdPort, "remote")
	m.name += "-of-10k-backends"
	m.r, m.prog = s.wide, s.wide.Program(hook)
	return m
}

// crowd is how many backends the service at crowdPort of the wide rig has.
const crowd, crowdPort = 10_000, 84

func crowdBackend(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, 2, byte(1 + i%100)}), uint16(10_000+i/100))
}

func addCrowd(b *testing.B, r *rig.Rig) maps.BackendID {
	all := make([]maps.Backend, crowd)
	for i := range all {
		all[i] = rig.Backend(crowdBackend(i).String(), false)
	}
	_, first := r.AddService(b, maps.Frontend{Addr: vip[true].Addr(), Port: crowdPort, Proto: maps.TCP}, all...)
	return first
}

// replies leave by TC egress.
func (s *suite) replies() *measure {
	const n = 10_000
	return &measure{
		r: s.r, name: "tc-egress/reply-TCP-v4/10k", hook: maps.HookTCEgress, prog: s.r.Program(maps.HookTCEgress),
		flows: n, reply: true, floor: "floor/ideal-nat/10k", want: maps.VerdictReplyLocal,
		in:    spec(pod[true], client(true, 0), maps.TCP, packet.ACK),
		setUp: func() error { return s.fillLocal(n) },
	}
}

// leaving is what leaves an uplink and has nothing to do with Services.
func (s *suite) leaving() *measure {
	m := s.replies()
	m.name, m.floor, m.want, m.setUp = "tc-egress/not-a-service", "floor/parse+2-misses", maps.VerdictNotService, nil
	m.in.Src = on(pod[true], 9)
	return m
}

// newFlow is a SYN of a flow nobody knows: the map is in steady eviction.
func (s *suite) newFlow(hook maps.Hook, port uint16, place string) *measure {
	want := maps.VerdictToLocal
	if place == "remote" {
		want = maps.VerdictToRemote
	}
	return &measure{
		r: s.r, name: fmt.Sprintf("%s/new-TCP-v4-%s", hook, place), hook: hook, prog: s.r.Program(hook),
		flows: 1 << 22, floor: "floor/ideal-new-flow", want: want,
		in: spec(client(true, 0), on(vip[true], port), maps.TCP, packet.SYN),
	}
}

func (s *suite) notService(hook maps.Hook) *measure {
	return &measure{
		r: s.r, name: fmt.Sprintf("%s/not-a-service", hook), hook: hook, prog: s.r.Program(hook), flows: 10_000,
		floor: "floor/parse+2-misses", want: maps.VerdictNotService,
		in: spec(client(true, 0), on(vip[true], 9), maps.TCP, packet.ACK),
	}
}

func count(n uint32) string {
	switch {
	case n >= 1_000_000:
		return fmt.Sprintf("%dM", n/1_000_000)
	case n >= 1000:
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprint(n)
}

// run measures one round of m and keeps the least time.
func (s *suite) run(b *testing.B, m *measure) {
	b.Helper()
	if m.setUp != nil {
		if err := m.setUp(); err != nil {
			b.Fatal(err)
		}
		m.setUp = nil
	}
	frame, err := m.in.Bytes()
	if err != nil {
		b.Fatal(err)
	}
	if err := s.aim(m, frame); err != nil {
		b.Fatal(err)
	}
	before := s.verdicts(b, m)
	// Untimed: caches, routes, and what the flows map has to learn.
	s.repeat(b, m, frame, int(min(m.flows, 1<<20)))
	took := s.repeat(b, m, frame, *packets)
	if m.best == 0 || took < m.best {
		m.best = took
	}
	// Nothing else than the wanted may have been measured.
	if done := s.verdicts(b, m) - before; m.want != 0 && done < uint64(*packets)*99/100 {
		b.Fatalf("%s: only %d of %d packets had verdict %s", m.name, done, *packets, m.want)
	}
}

func (s *suite) verdicts(b *testing.B, m *measure) uint64 {
	b.Helper()
	all, err := m.r.Set.Counters().All()
	if err != nil {
		b.Fatal(err)
	}
	return all[m.hook][m.want]
}

// repeat runs m n times and returns the nanoseconds one run took.
func (s *suite) repeat(b *testing.B, m *measure, frame []byte, n int) (took uint32) {
	b.Helper()
	wrap := s.floor.Programs["wrap_xdp"]
	if m.hook != maps.HookXDP {
		wrap = s.floor.Programs["wrap_tc"]
	}
	ctx := rig.Context{}
	err := m.r.World.Do(func() (err error) {
		took, err = runTimed(wrap, frame, ctx.Bytes(m.hook, len(frame), m.r.World.Uplink), n)
		return err
	})
	if err != nil {
		b.Fatalf("%s: %v", m.name, err)
	}
	return took
}

// aim makes the harness send m's packets to m's program.
func (s *suite) aim(m *measure, frame []byte) error {
	target := s.floor.Maps["target_xdp"]
	if m.hook != maps.HookXDP {
		target = s.floor.Maps["target_tc"]
	}
	if err := target.Put(uint32(0), m.prog); err != nil {
		return err
	}
	var w [16 + 96]byte
	addr, port := offsets(m.in.IsIPv4(), m.reply)
	binary.NativeEndian.PutUint32(w[0:], m.flows)
	binary.NativeEndian.PutUint32(w[4:], addr)
	binary.NativeEndian.PutUint32(w[8:], port)
	copy(w[16:], frame)
	return s.floor.Maps["wrap"].Put(uint32(0), w[:])
}

// offsets of the last two bytes of the client's address, and of its port.
func offsets(v4, reply bool) (addr, port uint32) {
	switch {
	case v4 && reply:
		return 32, 36
	case v4:
		return 28, 34
	case reply:
		return 52, 56
	}
	return 36, 54
}

// fill writes n established flows to the backend on the other node.
func fill(r *rig.Rig, v4 bool, proto maps.Proto, n int) error {
	for i := range n {
		key := maps.FlowKey{Src: client(v4, i), Dst: vip[v4], Proto: proto}
		node := rig.Node6
		if v4 {
			node = rig.Node4
		}
		// More addresses than a node has: a million source ports.
		snat := client(v4, i)
		if i < 1<<14 {
			snat = netip.AddrPortFrom(node, snat.Port())
		}
		if err := put(r, key, maps.Flow{Src: snat, Dst: far[v4], Flags: maps.FlowRemote}); err != nil {
			return err
		}
	}
	return nil
}

// fillLocal writes n established flows to the backend on this node.
func (s *suite) fillLocal(n int) error {
	for i := range n {
		c := client(true, i)
		if err := put(s.r, maps.FlowKey{Src: c, Dst: on(vip[true], 81), Proto: maps.TCP}, maps.Flow{Src: c, Dst: pod[true]}); err != nil {
			return err
		}
	}
	return nil
}

// put writes both halves of a flow of the first backend.
func put(r *rig.Rig, k maps.FlowKey, f maps.Flow) error {
	f.Generation = 1
	if err := r.Set.Flows().Put(k, f); err != nil {
		return err
	}
	back := f
	back.Src, back.Dst, back.Flags = k.Dst, k.Src, f.Flags|maps.FlowReverse
	return r.Set.Flows().Put(maps.Counterpart(k, f), back)
}

// fillIdeals writes n flows into the maps of the floor programs.
func (s *suite) fillIdeals(n int) error {
	for i := range n {
		c := client(true, i)
		var k4 [16]byte
		src, dst := c.Addr().As4(), vip[true].Addr().As4()
		copy(k4[0:], src[:])
		copy(k4[4:], dst[:])
		binary.BigEndian.PutUint16(k4[8:], c.Port())
		binary.BigEndian.PutUint16(k4[10:], vip[true].Port())
		binary.NativeEndian.PutUint32(k4[12:], uint32(maps.TCP))
		var f bpf.LayoutFlow
		if err := s.floor.Maps["ideal4"].Put(k4[:], &f); err != nil {
			return err
		}
		k := bpf.LayoutFlowKey{Proto: uint8(maps.TCP)}
		k.Src.B, k.Dst.B = c.Addr().As16(), vip[true].Addr().As16()
		k.Sport, k.Dport = swap(c.Port()), swap(vip[true].Port())
		if err := s.floor.Maps["ideal16"].Put(&k, &f); err != nil {
			return err
		}
	}
	return nil
}

func swap(p uint16) uint16 { return p<<8 | p>>8 }
