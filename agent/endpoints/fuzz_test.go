package endpoints

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/service"
)

// fromBytes makes inputs of anything: a byte of policies, then two per endpoint.
func fromBytes(data []byte) Inputs {
	var settings byte
	if len(data) > 0 {
		settings, data = data[0], data[1:]
	}
	in := inputs(nil, service.Policy(settings&1), service.Policy(settings>>1&1), settings&4 != 0)
	if settings&8 != 0 {
		in.Zone = ""
	}
	for i := 0; len(data) >= 2 && i < 250; i++ {
		in.Endpoints = append(in.Endpoints, endpointOf(byte(i), binary.LittleEndian.Uint16(data)))
		data = data[2:]
	}
	return in
}

// endpointOf makes the i-th endpoint of 12 bits.
func endpointOf(i byte, bits uint16) service.Endpoint {
	e := service.Endpoint{
		Addr:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, i}), 80),
		Ready: bits&1 != 0, Serving: bits&2 != 0, Terminating: bits&4 != 0,
		NodeName:  []string{"", node, "there", node}[bits>>3&3],
		ZoneHints: []service.NameSet{"", service.NewNameSet(zone), service.NewNameSet("b"), service.NewNameSet("b", zone)}[bits>>5&3],
		NodeHints: []service.NameSet{"", service.NewNameSet(node), service.NewNameSet("x"), service.NewNameSet("x", node)}[bits>>7&3],
	}
	if bits>>9&1 != 0 {
		e.Addr = netip.AddrPortFrom(netip.AddrFrom16([16]byte{0: 0xfd, 15: i}), 80)
	}
	// Hints are worth something only where most endpoints have them.
	if bits>>10&1 != 0 && e.ZoneHints == "" {
		e.ZoneHints = service.NewNameSet(zone)
	}
	if bits>>11&1 != 0 && e.NodeHints == "" {
		e.NodeHints = service.NewNameSet(node)
	}
	return e
}

// wanted is the second opinion: for each endpoint on its own, whether it is in
// a set, by counting what the others are.
func wanted(in Inputs, local bool) []service.Endpoint {
	ext := in.Port.NodePort != 0
	usedHere := in.Service.InternalPolicy == service.Cluster || ext
	if local {
		usedHere = in.Service.InternalPolicy == service.Local || in.Service.ExternalPolicy == service.Local && ext
	}
	var out []service.Endpoint
	for _, v4 := range []bool{true, false} {
		for _, e := range in.Endpoints {
			if usedHere && e.Addr.Addr().Is4() == v4 && belongs(e, in, local) {
				out = append(out, e)
			}
		}
	}
	return out
}

func belongs(e service.Endpoint, in Inputs, local bool) bool {
	var ready, nodeHints, zoneHints, myNode, myZone int
	for _, o := range in.Endpoints {
		if o.Addr.Addr().Is4() != e.Addr.Addr().Is4() || local && o.NodeName != in.NodeName || !o.Ready {
			continue
		}
		ready++
		nodeHints += count(o.NodeHints != "")
		zoneHints += count(o.ZoneHints != "")
		myNode += count(slices.Contains(o.NodeHints.Names(), in.NodeName))
		myZone += count(slices.Contains(o.ZoneHints.Names(), in.Zone))
	}
	switch {
	case local && e.NodeName != in.NodeName:
		return false
	case ready == 0:
		return e.Serving && e.Terminating
	case !e.Ready:
		return false
	case local:
		return true
	case nodeHints == ready && myNode > 0:
		return slices.Contains(e.NodeHints.Names(), in.NodeName)
	case zoneHints == ready && myZone > 0:
		return slices.Contains(e.ZoneHints.Names(), in.Zone)
	}
	return true
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// check compares a choice with the second opinion and looks at what must hold
// for every choice.
func check(t *testing.T, in Inputs) {
	t.Helper()
	c := Choose(in)
	byValue := cmp.Comparer(func(a, b service.Endpoint) bool { return a == b })
	for _, set := range []struct {
		name      string
		got, want []service.Endpoint
	}{{"cluster", c.Cluster, wanted(in, false)}, {"local", c.Local, wanted(in, true)}, {"all", c.All, in.Endpoints}} {
		if diff := cmp.Diff(set.want, set.got, byValue); diff != "" {
			t.Errorf("%s set of %+v (-want +got):\n%s", set.name, in, diff)
		}
	}
	for _, e := range c.Local {
		if e.NodeName != node {
			t.Errorf("in the local set is %+v", e)
		}
	}
	for _, e := range slices.Concat(c.Cluster, c.Local) {
		if !e.Ready && (!e.Serving || !e.Terminating) {
			t.Errorf("chosen is %+v, which does not serve", e)
		}
	}
	checkVerdicts(t, in, c)
}

// checkVerdicts: nobody is refused while somebody could serve, and only a
// policy Local makes a difference between the two.
func checkVerdicts(t *testing.T, in Inputs, c Choice) {
	t.Helper()
	for _, v4 := range []bool{true, false} {
		for _, class := range []Class{Internal, External, Inside} {
			if class != Internal && in.Port.NodePort == 0 {
				continue
			}
			got := c.Verdict(class, v4)
			if (got == Reject) == c.HasAny(v4) || (got == Forward) != (len(c.Candidates(class, v4)) > 0) {
				t.Errorf("class %d, v4 %v: %v with has any %v", class, v4, got, c.HasAny(v4))
			}
			local := class == Internal && c.InternalLocal || class == External && c.ExternalLocal
			if got == Drop && !local {
				t.Errorf("class %d, v4 %v: dropped although the policy is Cluster", class, v4)
			}
		}
	}
}

func TestChoicesAreThoseOfASecondOpinion(t *testing.T) {
	const rounds = 20000
	rng := rand.New(rand.NewPCG(1, 2))
	narrowed := 0
	for range rounds {
		data := make([]byte, 1+2*rng.IntN(7))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		in := fromBytes(data)
		check(t, in)
		if t.Failed() {
			t.Fatalf("by %v", data)
		}
		narrowed += count(len(Choose(in).Cluster) < len(Choose(withoutHints(in)).Cluster))
	}
	if narrowed < rounds/100 {
		t.Errorf("hints made a difference in %d of %d rounds only", narrowed, rounds)
	}
}

func withoutHints(in Inputs) Inputs {
	in.Endpoints = slices.Clone(in.Endpoints)
	for i := range in.Endpoints {
		in.Endpoints[i].ZoneHints, in.Endpoints[i].NodeHints = "", ""
	}
	return in
}

func FuzzChoose(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{7, 0x0b, 0x01, 0x13, 0x00, 0x06, 0x02})
	f.Fuzz(func(t *testing.T, data []byte) { check(t, fromBytes(data)) })
}
