package datapath

import (
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// What is for a Service, but for nobody there.

// abandon takes all endpoints from the service.
func (c *conversation) abandon() {
	c.t.Helper()
	c.setState(maps.Gone)
	c.putService(func(s *maps.Service) { s.Cluster, s.Local, s.HasEndpoints = maps.Table{}, maps.Table{}, false })
}

// unpublish deletes the frontend.
func (c *conversation) unpublish() {
	c.t.Helper()
	if err := c.r.Set.Frontends().Delete(c.f.frontend(c.proto)); err != nil {
		c.t.Fatal(err)
	}
}

// own makes addr one of the given kind.
func own(t *testing.T, r *rig.Rig, addr netip.Addr, flags maps.AddressFlags) {
	t.Helper()
	if err := r.Set.Addresses(maps.ServiceAddress|maps.NodeAddress).Put(addr, flags); err != nil {
		t.Fatal(err)
	}
}

// reserve makes the addresses around addr those of Services.
func reserve(t *testing.T, r *rig.Rig, addr netip.Addr) {
	t.Helper()
	if err := r.Set.ServiceCIDRs().Put(around(addr, addr.BitLen()-8)); err != nil {
		t.Fatal(err)
	}
}

// span tells the programs that only addresses in the prefixes may be Services'.
func span(t *testing.T, r *rig.Rig, v4, v6 netip.Prefix) {
	t.Helper()
	rt, err := r.Set.Runtime().Get()
	if err != nil {
		t.Fatal(err)
	}
	rt.Services4, rt.Services6 = v4, v6
	if err := r.Set.Runtime().Put(rt); err != nil {
		t.Fatal(err)
	}
}

// everyClient is everyCase without backends: the client's side only.
func everyClient(t *testing.T, r *rig.Rig, fn func(c *conversation)) {
	t.Helper()
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if !local {
			fn(newConversation(t, r, hook, f, proto, local))
		}
	})
}

// shapes are the forms that a client's first packet may have.
func shapes(s packet.Spec) map[string]packet.Spec {
	all := map[string]packet.Spec{"plain": s}
	tagged, optional, both, long := s, s, s, s
	tagged.VLANs = []uint16{rig.VLAN}
	optional.IPOptions, optional.HopByHop = []byte{7, 8, 4, 0, 0, 0, 0, 0}, true
	both.VLANs, both.IPOptions, both.HopByHop = tagged.VLANs, optional.IPOptions, true
	long.Payload = make([]byte, 1200)
	all["tagged"], all["with options"], all["tagged with options"], all["long"] = tagged, optional, both, long
	return all
}

// answerTo is what TCP and UDP are answered with, by ICMP or, as it is configured, RST.
func (c *conversation) answerTo(reset bool) func([]byte) ([]byte, error) {
	if reset && c.proto == maps.TCP {
		return packet.Reset
	}
	return packet.PortUnreachable
}

func TestAServiceWithoutEndpointsRejects(t *testing.T) {
	t.Parallel()
	for name, reset := range map[string]bool{"by ICMP": false, "by RST": true} {
		t.Run(name, func(t *testing.T) {
			r := lendWith(t, withAnswers(reset))
			everyClient(t, r, func(c *conversation) {
				c.serve().abandon()
				for name, in := range shapes(c.first()) {
					if reset && name == "tagged with options" && c.proto == maps.TCP {
						continue // see TestARSTIsNotMadeOfWhatTheKernelDoesNotCut
					}
					c.wantAnswer(plain(in), maps.VerdictNoEndpoints, c.answerTo(reset))
				}
				in := c.spec(c.f.client, c.f.vip, packet.ACK|packet.FIN, "midway")
				c.wantAnswer(plain(in), maps.VerdictNoEndpoints, c.answerTo(reset))
				c.wantNoFlow()
			})
		})
	}
}

func TestARSTIsNotMadeOfWhatTheKernelDoesNotCut(t *testing.T) {
	t.Parallel()
	r := lendWith(t, answering)
	everyClient(t, r, func(c *conversation) {
		if c.onXDP() || c.proto != maps.TCP {
			return
		}
		c.serve().abandon()
		wantOutcome(t, c.run(c.hook, shapes(c.first())["tagged with options"]), rig.Drop, maps.VerdictNoEndpoints)
	})
}

// The same number is acknowledged whatever the segment holds.
func TestARSTAcknowledgesWhatTookSequenceNumbers(t *testing.T) {
	t.Parallel()
	r := lendWith(t, answering)
	everyClient(t, r, func(c *conversation) {
		if c.proto != maps.TCP {
			return
		}
		c.serve().abandon()
		for _, flags := range []packet.Flags{0, packet.SYN, packet.FIN, packet.SYN | packet.FIN, packet.ACK} {
			c.wantAnswer(plain(c.spec(c.f.client, c.f.vip, flags, "data")), maps.VerdictNoEndpoints, packet.Reset)
		}
	})
}

func TestOtherPortsOfAClusterIPReject(t *testing.T) {
	t.Parallel()
	for name, reset := range map[string]bool{"by ICMP": false, "by RST": true} {
		t.Run(name, func(t *testing.T) {
			r := lendWith(t, withAnswers(reset))
			everyClient(t, r, func(c *conversation) {
				c.serve()
				own(c.t, c.r, c.f.vip.Addr(), maps.AddressClusterIP)
				reserve(c.t, c.r, c.f.vip.Addr())
				c.f.vip = withPort(c.f.vip, 81)
				c.wantAnswer(plain(c.first()), maps.VerdictNoPort, c.answerTo(reset))
				c.wantNoFlow()
			})
		})
	}
}

func TestOtherProtocolsOfAClusterIPReject(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyClient(t, r, func(c *conversation) {
		if c.onXDP() {
			return
		}
		own(c.t, c.r, c.f.vip.Addr(), maps.AddressClusterIP)
		in := c.first()
		c.wantAnswer(func(t *testing.T) []byte { return protocol(dccp)(in, frame(t, in)) }, maps.VerdictNoPort, packet.PortUnreachable)
		c.wantAnswer(pinging(in), maps.VerdictNoPort, packet.PortUnreachable)
	})
}

func pinging(s packet.Spec) func(t *testing.T) []byte {
	return func(t *testing.T) []byte {
		t.Helper()
		b, err := packet.Ping(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

func TestAnAddressThatIsNobodysIsDropped(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyClient(t, r, func(c *conversation) {
		reserve(c.t, c.r, c.f.vip.Addr())
		for _, in := range shapes(c.first()) {
			wantOutcome(c.t, c.run(c.hook, in), rig.Drop, maps.VerdictUnallocated)
		}
		own(c.t, c.r, c.f.vip.Addr(), maps.AddressExternal)
		wantOutcome(c.t, c.run(c.hook, c.first()), rig.Drop, maps.VerdictUnallocated)
		if !c.onXDP() {
			got := send(c.t, c.r, c.hook, pinging(c.first())(c.t), rig.Context{})
			wantOutcome(c.t, got, rig.Drop, maps.VerdictUnallocated)
		}
	})
}

// Load balancers have ports for others, and so have nodes.
func TestOtherPortsOfOtherAddressesPass(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyClient(t, r, func(c *conversation) {
		for _, flags := range []maps.AddressFlags{0, maps.AddressExternal | maps.AddressNode, maps.AddressNode} {
			own(c.t, c.r, c.f.vip.Addr(), flags)
			wantOutcome(c.t, c.run(c.hook, c.first()), rig.Pass, maps.VerdictNotService)
		}
	})
}

// An external address may be the node's (of which it does not know), on the link, or a machine's behind it.
func TestOtherPortsOfExternalAddressesPassIfTheyAreSomebodys(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyClient(t, r, func(c *conversation) {
		ours, near := rig.Second4, rig.Other4
		if c.f.vip.Addr().Is6() {
			ours, near = rig.Second6, rig.Other6
		}
		for _, addr := range []netip.Addr{ours, near, c.f.in(secondNet).remote.Addr()} {
			own(c.t, c.r, addr, maps.AddressExternal)
			c.f.vip = withAddr(c.f.vip, addr)
			wantOutcome(c.t, c.run(c.hook, c.first()), rig.Pass, maps.VerdictNotService)
		}
	})
}

// The stack would send it back to the router that has sent it here.
func TestWhatIsForNoPortOfAnAnnouncedAddressDoesNotCircle(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyClient(t, r, func(c *conversation) {
		own(c.t, c.r, c.f.vip.Addr(), maps.AddressExternal)
		if c.onXDP() {
			wantOutcome(c.t, c.run(c.hook, c.first()), rig.Pass, maps.VerdictNotService) // TC decides
			return
		}
		for _, make := range []func(*testing.T) []byte{plain(c.first()), pinging(c.first())} {
			c.wantAnswer(make, maps.VerdictNoPort, packet.PortUnreachable)
		}
	})
}

func TestOnlyAddressesInTheSpanOfServicesAreAskedFor(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyClient(t, r, func(c *conversation) {
		reserve(c.t, c.r, c.f.vip.Addr())
		mine := around(c.f.vip.Addr(), c.f.vip.Addr().BitLen()-7)
		other := around(c.f.client.Addr(), c.f.vip.Addr().BitLen())
		for _, tc := range []struct {
			span   netip.Prefix
			action rig.Action
			want   maps.Verdict
		}{
			{netip.Prefix{}, rig.Drop, maps.VerdictUnallocated},
			{mine, rig.Drop, maps.VerdictUnallocated},
			{around(c.f.vip.Addr(), c.f.vip.Addr().BitLen()), rig.Drop, maps.VerdictUnallocated},
			{around(c.f.vip.Addr(), 1), rig.Drop, maps.VerdictUnallocated},
			{other, rig.Pass, maps.VerdictNotService},
		} {
			if c.f.vip.Addr().Is4() {
				span(c.t, c.r, tc.span, netip.PrefixFrom(netip.IPv6Unspecified(), 128))
			} else {
				span(c.t, c.r, netip.PrefixFrom(netip.IPv4Unspecified(), 32), tc.span)
			}
			wantOutcome(c.t, c.run(c.hook, c.first()), tc.action, tc.want)
		}
	})
}

// unanswerable are sources nobody has, or many, by whether they are of IPv4.
var unanswerable = map[bool][]string{
	true:  {"0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.1.2.3", "255.255.255.255"},
	false: {"::", "::1", "ff02::1"},
}

// RFC 1122, 3.2.2, and common sense: no answer to one that could bring about
// another, or many.
func TestWhatMustNotBeAnsweredIsDropped(t *testing.T) {
	t.Parallel()
	r := lendWith(t, answering)
	everyClient(t, r, func(c *conversation) {
		if c.onXDP() {
			return
		}
		c.serve().abandon()
		for _, src := range unanswerable[c.f.vip.Addr().Is4()] {
			in := c.first()
			in.Src = withAddr(in.Src, netip.MustParseAddr(src))
			wantOutcome(c.t, c.run(c.hook, in), rig.Drop, maps.VerdictMartian)
		}
		if c.proto == maps.TCP {
			c.wantVerdict(packet.RST, rig.Drop, maps.VerdictNoEndpoints)
			c.wantVerdict(packet.RST|packet.ACK, rig.Drop, maps.VerdictNoEndpoints)
		}
	})
}

// oneASecond answers so rarely that, whatever a machine is busy with, few answers
// are added while a test runs.
var oneASecond = rig.Config{VIPEcho: true, RejectRate: 1}

// answerBurst is how many answers may come at once (bpf/flow/limit.h).
const answerBurst = 50

func TestAnswersAreLimited(t *testing.T) {
	t.Parallel()
	for _, hook := range ingressHooks {
		t.Run(hook.String(), func(t *testing.T) {
			r := lendWith(t, oneASecond)
			c := newConversation(t, r, hook, families[0], maps.UDP, false).serve()
			c.abandon()
			answered, limited := c.untilLimited(c.first())
			wantOutcome(t, limited, rig.Drop, maps.VerdictRejectLimited)
			wantBurst(t, answered)
		})
	}
}

// wantBurst checks how many answers there were before the limit.
func wantBurst(t *testing.T, answered int) {
	t.Helper()
	// Tests move between CPUs, each of which may answer so many.
	if most := (answerBurst + 1 + 60) * runtime.NumCPU(); answered < answerBurst || answered > most {
		t.Errorf("%d answers in a row, want %d to %d", answered, answerBurst, most)
	}
}

// untilLimited sends packets that are refused until one is not answered, and returns how many
// were and what became of that one. Each is sent once: [conversation.run] would
// send again what XDP leaves to TC.
func (c *conversation) untilLimited(s packet.Spec) (answered int, limited rig.Result) {
	c.t.Helper()
	in := frame(c.t, s)
	for n := range answerBurst * 100 * runtime.NumCPU() {
		if got := send(c.t, c.r, c.hook, in, rig.Context{}); got.Verdict == maps.VerdictRejectLimited {
			return n, got
		}
	}
	c.t.Fatal("there is no limit")
	return 0, rig.Result{}
}

// A route that takes only small packets goes on to say so, as far as the limit
// goes; the reason why a packet is dropped stays the same.
func TestBeyondTheLimitAPacketIsDroppedForItsReason(t *testing.T) {
	t.Parallel()
	r := lendWith(t, oneASecond)
	c := newConversation(t, r, maps.HookTCIngress, families[0], maps.UDP, false).serve()
	in := c.first()
	in.TTL = 1
	for range answerBurst * 100 * runtime.NumCPU() {
		got := c.run(c.hook, in)
		if got.Verdict != maps.VerdictTTLExpired {
			t.Fatalf("got %s", got.Verdict)
		}
		if got.Action == rig.Drop {
			return
		}
	}
	t.Error("there is no limit")
}

// changes are all that may happen to a service while its connections go on.
var changes = map[string]func(c *conversation){
	"it loses its last endpoint": (*conversation).abandon,
	"it is deleted": func(c *conversation) {
		c.setState(maps.Gone)
		c.unpublish()
	},
	"it is deleted, and its address is another's": func(c *conversation) {
		c.setState(maps.Gone)
		c.unpublish()
		own(c.t, c.r, c.f.vip.Addr(), maps.AddressClusterIP)
	},
	"it is deleted, and its address is nobody's": func(c *conversation) {
		c.setState(maps.Gone)
		c.unpublish()
		reserve(c.t, c.r, c.f.vip.Addr())
	},
	"its policy is Local, and nobody is here": func(c *conversation) {
		c.putService(func(s *maps.Service) { s.ExternalLocal, s.Local = true, maps.Table{} })
	},
	"its internal policy is Local, and nobody is here": func(c *conversation) {
		c.putService(func(s *maps.Service) { s.InternalLocal, s.Cluster = true, maps.Table{} })
	},
	"its topology leads elsewhere": func(c *conversation) {
		c.putBackend(func(b *maps.Backend) { b.InCluster, b.InLocal = false, false })
		c.succeed()
	},
	"its clients are restricted to others": func(c *conversation) { c.allow() },
	"its endpoint is not ready any more":   func(c *conversation) { c.setState(maps.Draining) },
	"its endpoint does not serve": func(c *conversation) {
		c.putBackend(func(b *maps.Backend) { b.State, b.Unserving = maps.Draining, true })
		c.succeed()
	},
}

func TestAnEstablishedConnectionSurvivesEveryChangeOfItsService(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			everyConversation(t, r, maps.TCP, func(c *conversation) {
				c.handshake()
				change(c)
				c.goOn()
				c.age(c.forwardKey())
				c.age(c.reverseKey())
				c.goOn()
				c.closeByFIN()
			})
		})
	}
}

// Its client has been answered, and believes to be connected.
func TestAHandshakeIsFinishedThoughItsServiceIsGone(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for _, name := range []string{
		"it loses its last endpoint", "it is deleted, and its address is another's", "it is deleted, and its address is nobody's",
	} {
		t.Run(name, func(t *testing.T) {
			everyConversation(t, r, maps.TCP, func(c *conversation) {
				c.forward(packet.SYN, "")
				c.reply(packet.SYN|packet.ACK, "")
				changes[name](c)
				c.forward(packet.ACK, "")
				c.goOn()
			})
		})
	}
}

// What a datagram flow does not survive is that its backend cannot serve it.
func TestDatagramsSurviveChangesOfPolicy(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for name, change := range changes {
		if !slices.Contains([]string{
			"its policy is Local, and nobody is here", "its internal policy is Local, and nobody is here",
			"its topology leads elsewhere", "its clients are restricted to others", "its endpoint is not ready any more",
		}, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			everyConversation(t, r, maps.UDP, func(c *conversation) {
				c.begin()
				change(c)
				c.goOn()
			})
		})
	}
}

// The next datagram after the last endpoint has gone is rejected, or dropped
// where nobody has the address any more.
func TestADatagramIsNotSentToALostBackend(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for _, answered := range []bool{false, true} {
		everyConversation(t, r, maps.UDP, func(c *conversation) {
			for _, tc := range []struct {
				change  string
				verdict maps.Verdict
			}{
				{"it loses its last endpoint", maps.VerdictNoEndpoints},
				{"it is deleted, and its address is another's", maps.VerdictNoPort},
				{"it is deleted, and its address is nobody's", maps.VerdictUnallocated},
				{"it is deleted", maps.VerdictNotService},
			} {
				c.r.Reset(c.t)
				c.serve()
				c.snat = 0
				c.begin()
				if answered {
					c.reply(0, "answer")
				}
				changes[tc.change](c)
				c.wantLost(tc.verdict)
				c.wantLost(tc.verdict)
				if _, ok := c.lookup(c.forwardKey()); ok {
					c.t.Error("the flow is still there")
				}
			}
		})
	}
}

// wantLost sends a datagram that cannot be served.
func (c *conversation) wantLost(v maps.Verdict) {
	c.t.Helper()
	switch v {
	case maps.VerdictNoEndpoints, maps.VerdictNoPort:
		c.wantAnswer(plain(c.first()), v, packet.PortUnreachable)
	case maps.VerdictNotService:
		c.wantVerdict(0, rig.Pass, v)
	default:
		c.wantVerdict(0, rig.Drop, v)
	}
}
