package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// Datagrams in pieces. Only the first has ports, and the checksum of the whole.

// datagrams are the protocols whose fragments are translated. A checksum of SCTP
// cannot be corrected without the length of the whole.
var datagrams = []maps.Proto{maps.TCP, maps.UDP}

// everyDatagram is everyCase for a flow that has begun.
func everyDatagram(t *testing.T, fn func(c *conversation)) {
	t.Helper()
	t.Parallel()
	r := lend(t)
	everyCaseOf(t, r, datagrams, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		fn(c)
	})
}

func TestFragmentsFollowTheFirst(t *testing.T) {
	everyDatagram(t, func(c *conversation) {
		c.travelAll(c.forwardPieces(fragmentID))
		c.travelAll(c.replyPieces(fragmentID))
		c.goOn()
		c.travelAll(c.forwardPieces(fragmentID + 1))
	})
}

func TestLaterFragmentsMayComeInAnyOrder(t *testing.T) {
	everyDatagram(t, func(c *conversation) {
		for _, j := range []journey{c.forwardPieces(fragmentID), c.replyPieces(fragmentID)} {
			for _, i := range []int{0, 2, 1, 1, 0, 2} {
				c.travel(j, i)
			}
		}
	})
}

func TestAFlowMayBeginWithFragments(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.UDP, func(c *conversation) {
		in := cutUp(c.t, long(c.first()), fragmentID)
		got := send(c.t, r, c.wayIn(), in[0], rig.Context{})
		if !c.local {
			spec := c.first()
			if !spec.IsIPv4() {
				spec.DstOptions = 1 // as long as a fragment header
			}
			c.snat = sourcePort(c.t, got.Frame, spec)
		}
		c.wantState(halfOpen)
		c.travelAll(c.replyPieces(fragmentID))
		c.travelAll(c.forwardPieces(fragmentID))
		c.wantState(established)
		c.goOn()
		c.wantConnections(1, 0)
	})
}

func TestAFirstFragmentWithAChecksumOfZeroKeepsIt(t *testing.T) {
	everyDatagram(t, func(c *conversation) {
		if c.proto == maps.TCP {
			return
		}
		c.edit = func(s *packet.Spec) { s.NoChecksum = true }
		c.travelAll(c.forwardPieces(fragmentID))
		c.travelAll(c.replyPieces(fragmentID))
	})
}

func TestFragmentsCountAsPackets(t *testing.T) {
	everyDatagram(t, func(c *conversation) {
		before := c.counts()
		c.travelAll(c.forwardPieces(fragmentID))
		c.travelAll(c.replyPieces(fragmentID))
		after := c.counts()
		if after.Packets-before.Packets != pieces || after.RxPackets-before.RxPackets != pieces {
			c.t.Errorf("before %+v, after %+v, want %d packets more each way", before, after, pieces)
		}
	})
}

// An identification is unique among those of one source and destination only.
func TestDatagramsWithOneIdentificationAreKeptApart(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCaseOf(t, r, datagrams, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		f.client = withAddr(f.client, f.client.Addr().Next())
		other := newConversation(t, r, hook, f, proto, local)
		other.id, other.base = c.id, c.base
		other.begin()
		a, b := c.forwardPieces(fragmentID), other.forwardPieces(fragmentID)
		for i := range pieces {
			c.travel(a, i)
			other.travel(b, i)
		}
	})
}

// A client may send from two ports at once.
func TestDatagramsOfOneClientAreKeptApartByIdentification(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCaseOf(t, r, datagrams, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		other := newConversation(t, r, hook, withClient(f, 40002), proto, local)
		other.f.vip = withPort(f.vip, f.vip.Port()+1)
		other.backend = withPort(other.backend, other.backend.Port()+1)
		if local {
			other.backend = withAddr(other.backend, other.backend.Addr().Next())
		}
		other.serve().begin()
		a, b := c.forwardPieces(fragmentID), other.forwardPieces(fragmentID+1)
		for i := range pieces {
			c.travel(a, i)
			other.travel(b, i)
		}
	})
}

// From one client: the ports of the newer datagram count.
func TestAnIdentificationUsedAgainMeansTheNewerDatagram(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCaseOf(t, r, datagrams, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		newer := newConversation(t, r, hook, withClient(f, 40002), proto, local)
		newer.begin()
		older, j := c.forwardPieces(fragmentID), newer.forwardPieces(fragmentID)
		c.travel(older, 0)
		c.travel(older, 1)
		newer.travelAll(j)
		c.travel(older, 0)
		c.travel(older, 2)
	})
}

func TestAnAtomicFragmentIsAPacket(t *testing.T) {
	everyDatagram(t, func(c *conversation) {
		if c.f.client.Addr().Is4() {
			return
		}
		in := c.spec(c.f.client, c.f.vip, packet.ACK, "all of it")
		j := c.forwardPieces(0) // as the one below
		want := in
		want.Dst = c.backend
		if !c.local {
			want.Src, want.TTL = c.reverseKey().Dst, routedTTL(in)
		}
		fragmented6(0)(&in)
		fragmented6(0)(&want)
		later := j.in[1]
		j.in, j.want = [][]byte{frame(c.t, in)}, [][]byte{frame(c.t, want)}
		c.travelAll(j)
		// Nothing follows it, so nothing is remembered (RFC 6946).
		wantOutcome(c.t, send(c.t, c.r, j.hook, later, rig.Context{}), rig.Pass, maps.VerdictFragment)
	})
}

// What comes before the first is dropped only where nobody else could want it.
func TestAFragmentWhoseFirstWasNotSeen(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		owner   maps.AddressFlags
		action  rig.Action
		verdict maps.Verdict
	}{
		"to a ClusterIP":                  {maps.AddressClusterIP, rig.Drop, maps.VerdictFragmentUnknown},
		"to a load balancer":              {maps.AddressExternal, rig.Drop, maps.VerdictFragmentUnknown},
		"to the node":                     {maps.AddressNode, rig.Pass, maps.VerdictFragment},
		"to an external IP of the node's": {maps.AddressExternal | maps.AddressNode, rig.Pass, maps.VerdictFragment},
		"to who knows":                    {0, rig.Pass, maps.VerdictFragment},
	}
	r := lend(t)
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			everyCaseOf(t, r, datagrams, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
				c := newConversation(t, r, hook, f, proto, local).serve()
				c.begin()
				if tc.owner != 0 {
					own(t, r, f.vip.Addr(), tc.owner)
				}
				j := c.forwardPieces(fragmentID)
				wantOutcome(t, send(t, r, j.hook, j.in[2], rig.Context{}), tc.action, tc.verdict)
				c.travel(j, 0)
				c.travel(j, 1)
				c.travel(j, 2)
				r.AgeFragments(t, 31)
				wantOutcome(t, send(t, r, j.hook, j.in[2], rig.Context{}), tc.action, tc.verdict)
				// What leaves by an uplink may be anybody's.
				j = c.replyPieces(fragmentID)
				if local {
					wantOutcome(t, send(t, r, j.hook, j.in[1], rig.Context{}), rig.Pass, maps.VerdictFragment)
				}
			})
		})
	}
}

func TestFragmentsThatAreNobodysFlow(t *testing.T) {
	t.Parallel()
	type outcome struct {
		action  rig.Action
		verdict maps.Verdict
	}
	untouched := outcome{rig.Pass, maps.VerdictFragment}
	tests := map[string]struct {
		owner        maps.AddressFlags
		first, later outcome
	}{
		"to a stranger":                  {0, untouched, untouched},
		"to a port of the node's":        {maps.AddressNode, outcome{rig.Pass, maps.VerdictNotService}, untouched},
		"to another port of an external": {maps.AddressExternal | maps.AddressNode, outcome{rig.Pass, maps.VerdictNotService}, untouched},
		"to no port of a ClusterIP":      {maps.AddressClusterIP, outcome{rig.Sent, maps.VerdictNoPort}, outcome{rig.Drop, maps.VerdictFragmentUnknown}},
	}
	r := lend(t)
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			everyCaseOf(t, r, datagrams, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
				c := newConversation(t, r, hook, f, proto, local).serve()
				c.begin()
				stranger := withPort(otherVIP(f), 81)
				if tc.owner != 0 {
					own(t, r, stranger.Addr(), tc.owner)
				}
				in := cutUp(t, long(c.spec(f.client, stranger, packet.ACK, "")), fragmentID)
				for i, want := range []outcome{tc.first, tc.later, tc.later} {
					wantOutcome(t, send(t, r, c.wayIn(), in[i], rig.Context{}), want.action, want.verdict)
					wantOutcome(t, send(t, r, c.backHook(), in[i], rig.Context{}), rig.Pass, maps.VerdictFragment)
				}
			})
		})
	}
}

func TestFragmentsOfADatagramThatIsDroppedAreDropped(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.UDP, func(c *conversation) {
		c.setState(maps.Gone)
		in := cutUp(c.t, long(c.first()), fragmentID)
		wantOutcome(c.t, send(c.t, r, c.wayIn(), in[0], rig.Context{}), rig.Drop, maps.VerdictNoBackend)
		wantOutcome(c.t, send(c.t, r, c.wayIn(), in[1], rig.Context{}), rig.Drop, maps.VerdictFragmentUnknown)
	})
}

func TestFragmentsAtTheWrongHookPassUntouched(t *testing.T) {
	everyDatagram(t, func(c *conversation) {
		wrong := map[maps.Hook]maps.Hook{c.wayIn(): c.backHook(), c.backHook(): c.wayIn()}
		for _, j := range []journey{c.forwardPieces(fragmentID), c.replyPieces(fragmentID)} {
			for range 2 {
				for _, in := range j.in {
					wantOutcome(c.t, send(c.t, c.r, wrong[j.hook], in, rig.Context{}), rig.Pass, maps.VerdictFragment)
				}
				c.travelAll(j)
			}
		}
	})
}

// RFC 8200 and RFC 1858: too short a first fragment is no way past the ports.
func TestAFirstFragmentWithoutAWholeHeaderIsNotFollowed(t *testing.T) {
	everyDatagram(t, func(c *conversation) {
		if c.proto == maps.UDP {
			return // 8 bytes are all of its header
		}
		own(c.t, c.r, c.f.vip.Addr(), maps.AddressExternal)
		in, err := long(c.spec(c.f.client, c.f.vip, packet.ACK, "")).Fragments(fragmentID, 16)
		if err != nil {
			c.t.Fatal(err)
		}
		wantOutcome(c.t, send(c.t, c.r, c.wayIn(), in[0], rig.Context{}), rig.Pass, maps.VerdictFragment)
		wantOutcome(c.t, send(c.t, c.r, c.wayIn(), in[1], rig.Context{}), rig.Drop, maps.VerdictFragmentUnknown)
	})
}

func TestHeadersBeforeTheFragmentsData(t *testing.T) {
	edits := map[string]struct {
		family string // empty: both
		local  bool   // only such
		edit   func(*packet.Spec)
	}{
		"options":                {family: "IPv4", edit: func(s *packet.Spec) { s.IPOptions = []byte{7, 8, 4, 0, 0, 0, 0, 0} }},
		"an extension header":    {family: "IPv6", edit: func(s *packet.Spec) { s.HopByHop = true }},
		"four extension headers": {family: "IPv6", edit: func(s *packet.Spec) { s.HopByHop, s.DstOptions = true, 3 }},
		"a VLAN tag":             {local: true, edit: func(s *packet.Spec) { s.VLANs = []uint16{rig.VLAN} }},
		"two VLAN tags":          {local: true, edit: func(s *packet.Spec) { s.VLANs = []uint16{7, 8} }},
		"another traffic class":  {edit: func(s *packet.Spec) { s.TOS = 0x88 }},
	}
	for name, e := range edits {
		t.Run(name, func(t *testing.T) {
			everyDatagram(t, func(c *conversation) {
				if e.family != "" && e.family != c.f.name || e.local && !c.local {
					return
				}
				c.edit = e.edit
				c.travelAll(c.forwardPieces(fragmentID))
				c.travelAll(c.replyPieces(fragmentID))
			})
		})
	}
}

// In the part that is datagrams an extension header hides the ports.
func TestAnExtensionHeaderBehindTheFragmentHeaderPassesUntouched(t *testing.T) {
	everyDatagram(t, func(c *conversation) {
		if c.f.client.Addr().Is4() {
			return
		}
		in := c.spec(c.f.client, c.f.vip, packet.ACK, "x")
		fragmented6(1)(&in)
		in.Extensions = append(in.Extensions, padding)
		wantOutcome(c.t, send(c.t, c.r, c.wayIn(), frame(c.t, in), rig.Context{}), rig.Pass, maps.VerdictFragment)
	})
}

// Routers answer the first fragment only (RFC 1122, 3.2.2).
func TestFragmentsThatCannotBeSentOn(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for name, tc := range map[string]struct {
		network string
		verdict maps.Verdict
		edit    func(*packet.Spec)
	}{
		"a TTL that runs out": {"2", maps.VerdictTTLExpired, func(s *packet.Spec) { s.TTL = 1 }},
		"too big":             {narrowNet, maps.VerdictTooBig, func(s *packet.Spec) { s.Payload = make([]byte, 3*rig.SmallMTU) }},
	} {
		t.Run(name, func(t *testing.T) {
			everyRemote(t, r, tc.network, func(c *conversation) {
				if c.proto == maps.SCTP {
					return // see TestFragmentsOfSCTPPassUntouched
				}
				c.begin()
				in := long(c.spec(c.f.client, c.f.vip, packet.ACK, ""))
				tc.edit(&in)
				out, err := in.Fragments(fragmentID, (len(in.Payload)/3+7)&^7)
				if err != nil {
					c.t.Fatal(err)
				}
				for _, piece := range out {
					dontFragment(piece)
				}
				first := send(c.t, r, c.wayIn(), out[0], rig.Context{})
				if first.Verdict != tc.verdict || c.f.client.Addr().Is4() && first.Action != rig.Sent {
					c.t.Errorf("the first: %s and %s, want %s", first.Action, first.Verdict, tc.verdict)
				}
				wantOutcome(c.t, send(c.t, r, c.wayIn(), out[1], rig.Context{}), rig.Drop, tc.verdict)
			})
		})
	}
}

// Their checksum cannot be corrected without the length of the whole.
func TestFragmentsOfSCTPPassUntouched(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.SCTP, func(c *conversation) {
		c.handshake()
		all, err := long(c.spec(c.f.client, c.f.vip, packet.ACK, "")).Fragments(fragmentID, fragmentSize)
		if err != nil {
			t.Fatal(err)
		}
		for i, piece := range all {
			got := send(t, r, c.hook, piece, rig.Context{})
			if got.Verdict != maps.VerdictFragment {
				t.Errorf("fragment %d: %s", i, got.Verdict)
			}
		}
	})
}
