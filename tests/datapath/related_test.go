package datapath

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// ICMP errors about packets of flows, in both directions. The quoted packet is
// built twice, as the router saw it and as its sender knows it.

// everyError is everyCase for a flow that has begun, and every kind of error.
func everyError(t *testing.T, fn func(c *conversation, m message)) {
	t.Helper()
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		for _, m := range errorsOf[f.name] {
			fn(c, m)
		}
		c.goOn()
	})
}

func TestAnErrorAboutAPacketToABackendReachesItsClient(t *testing.T) {
	everyError(t, func(c *conversation, m message) {
		c.relate(c.aboutForward(m, c.f.router()))
		c.relate(c.aboutForward(m, c.backend.Addr()))
		c.relate(c.aboutForward(m, c.f.node))
	})
}

func TestAnErrorAboutAReplyReachesItsBackend(t *testing.T) {
	everyError(t, func(c *conversation, m message) {
		c.relate(c.aboutReply(m, c.f.router()))
		c.relate(c.aboutReply(m, c.f.client.Addr()))
	})
}

// Routers quote from 8 bytes of the transport header to all of the packet.
func TestAnErrorIsTranslatedHoweverMuchItQuotes(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		for _, n := range []int{8, 9, 15, 16, 18, 19, 20, 27} {
			x := c.aboutForward(tooBigOf(f), f.router())
			x.bytes = n
			c.relate(x)
		}
	})
}

func TestAnErrorThatQuotesTooLittlePassesUntouched(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		x := c.aboutForward(tooBigOf(f), f.router())
		for n := range x.quoted.L4() - x.quoted.L3() + 8 {
			x.in.Quote = frame(t, x.quoted)[x.quoted.L3():][:n]
			c.disregard("a short quote", x.hook, icmpFrame(t, x.in))
		}
		x.bytes = 8
		in, _ := x.frames(t)
		for n := 1; n <= 8; n++ { // the frame ends before the packet does
			c.disregard("a short frame", x.hook, in[:len(in)-n])
		}
	})
}

func TestOnlyErrorsAreTranslated(t *testing.T) {
	t.Parallel()
	others := map[string][]message{
		"IPv4": {{"echo reply", 0, 0, 0}, {"source quench", 4, 0, 0}, {"redirect", 5, 1, 0}, {"echo request", 8, 0, 0}, {"timestamp", 13, 0, 0}},
		"IPv6": {{"reserved", 0, 0, 0}, {"an unknown error", 5, 0, 0}, {"echo request", 128, 0, 0}, {"neighbour solicitation", 135, 0, 0}, {"redirect", 137, 0, 0}},
	}
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		for _, m := range others[f.name] {
			x := c.aboutForward(m, f.router())
			in, _ := x.frames(t)
			c.disregard(m.name, x.hook, in)
		}
	})
}

func TestAnErrorAboutNoFlowPassesUntouched(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		strangers := map[string]func(x *exchange){
			"another port of the backend":     func(x *exchange) { x.quoted.Dst = withPort(x.quoted.Dst, 81) },
			"another port of the client":      func(x *exchange) { x.quoted.Src = withPort(x.quoted.Src, 81) },
			"another backend":                 func(x *exchange) { x.quoted.Dst = withAddr(x.quoted.Dst, x.quoted.Dst.Addr().Next()) },
			"a packet before its translation": func(x *exchange) { x.quoted = x.known },
			"another protocol":                func(x *exchange) { x.quoted.Proto = another(proto) },
			"to somebody else":                func(x *exchange) { x.in.Dst = withAddr(x.in.Dst, x.in.Dst.Addr().Next()) },
		}
		for name, change := range strangers {
			x := c.aboutForward(tooBigOf(f), f.router())
			change(&x)
			in, _ := x.frames(t)
			c.disregard(name, x.hook, in)
		}
	})
}

func another(proto maps.Proto) maps.Proto {
	if proto == maps.TCP {
		return maps.UDP
	}
	return maps.TCP
}

// It goes where the packets of the flow go that have its direction.
func TestAnErrorAtTheWrongHookPassesUntouched(t *testing.T) {
	everyError(t, func(c *conversation, m message) {
		x := c.aboutForward(m, c.f.router())
		in, _ := x.frames(c.t)
		c.disregard("about a packet of the client's", c.wayIn()+c.backHook()-x.hook, in)
		x = c.aboutReply(m, c.f.router())
		in, _ = x.frames(c.t)
		c.disregard("about a reply", c.backHook(), in)
	})
}

// What says it is an error of the other family, or is only a part of one.
func TestAnErrorInTheWrongWrappingPassesUntouched(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		x := c.aboutForward(tooBigOf(f), f.router())
		in, _ := x.frames(t)
		at, other := x.in.L3()+9, byte(icmpv6)
		if !x.in.IsIPv4() {
			at, other = x.in.L3()+6, icmp
		} else {
			in[x.in.L3()+6] = 0x20
			c.disregard("a fragment", x.hook, in)
			in[x.in.L3()+6] = 0
		}
		in[at] = other
		c.disregard("the other family's protocol", x.hook, in)
		x.in.Quote = x.quote(t, x.quoted)
		x.in.Quote[0] ^= 0x40 ^ 0x60
		c.disregard("a quote of the other family", x.hook, icmpFrame(t, x.in))
	})
}

// A later fragment has no ports; what stands there may be anything.
func TestAnErrorAboutALaterFragmentPassesUntouched(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		x := c.aboutForward(tooBigOf(f), f.router())
		if !f.client.Addr().Is4() {
			fragmented6(185 << 3)(&x.quoted)
		}
		x.in.Quote = x.quote(t, x.quoted)
		if f.client.Addr().Is4() {
			x.in.Quote[7] = 185
		}
		c.disregard("a later fragment", x.hook, icmpFrame(t, x.in))
	})
}

func TestHeadersThatMoveTheQuote(t *testing.T) {
	t.Parallel()
	options := []byte{7, 8, 4, 0, 0, 0, 0, 0}
	edits := map[string]struct {
		family string // empty: both
		local  bool   // only such
		edit   func(x *exchange)
	}{
		"options of the error":     {family: "IPv4", edit: func(x *exchange) { x.in.IPOptions, x.out.IPOptions = options, options }},
		"options that are quoted":  {family: "IPv4", edit: func(x *exchange) { x.quoted.IPOptions, x.known.IPOptions = options, options }},
		"an extension header":      {family: "IPv6", edit: func(x *exchange) { x.in.HopByHop, x.out.HopByHop = true, true }},
		"four extension headers":   {family: "IPv6", edit: func(x *exchange) { x.in.DstOptions, x.out.DstOptions = 4, 4 }},
		"quoted extension headers": {family: "IPv6", edit: func(x *exchange) { x.quoted.DstOptions, x.known.DstOptions = 3, 3 }},
		"a quoted fragment header": {family: "IPv6", edit: func(x *exchange) { fragmented6(1)(&x.quoted); fragmented6(1)(&x.known) }},
		"a VLAN tag":               {local: true, edit: func(x *exchange) { x.in.VLANs, x.out.VLANs = []uint16{rig.VLAN}, []uint16{rig.VLAN} }},
		"two VLAN tags":            {local: true, edit: func(x *exchange) { x.in.VLANs, x.out.VLANs = []uint16{7, 8}, []uint16{7, 8} }},
		"an odd number of bytes":   {edit: func(x *exchange) { x.bytes = 21 }},
		"another traffic class":    {edit: func(x *exchange) { x.in.TOS, x.out.TOS = 0xc0, 0xc0 }},
	}
	r := lend(t)
	for name, e := range edits {
		t.Run(name, func(t *testing.T) {
			everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
				if e.family != "" && e.family != f.name || e.local && !local {
					return
				}
				c := newConversation(t, r, hook, f, proto, local).serve()
				c.begin()
				x := c.aboutForward(tooBigOf(f), f.router())
				e.edit(&x)
				c.relate(x)
			})
		})
	}
}

func TestAQuotedUDPChecksumOfZeroStaysZero(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.UDP, func(c *conversation) {
		c.begin()
		x := c.aboutForward(tooBigOf(c.f), c.f.router())
		x.quoted.NoChecksum, x.known.NoChecksum = true, true
		c.relate(x)
	})
}

// Also with the checksums that come out as zero.
func TestAQuotedChecksumThatComesOutAsZero(t *testing.T) {
	t.Parallel()
	wants := map[maps.Proto]uint16{maps.UDP: 0xffff, maps.TCP: 0}
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		x := c.aboutForward(tooBigOf(f), f.router())
		x.known.Payload = balance(t, x.known, wants[proto])
		x.quoted.Payload = x.known.Payload
		c.relate(x)
	})
}

func TestErrorsAboutHandshakes(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		for _, m := range errorsOf[c.f.name] {
			c.forward(packet.SYN, "")
			c.relate(c.aboutForward(m, c.f.router()))
			c.reply(packet.SYN|packet.ACK, "")
			c.relate(c.aboutForward(m, c.f.router()))
			c.relate(c.aboutReply(m, c.f.router()))
		}
		c.handshake()
		c.goOn()
	})
}

// Whoever may guess a tuple may send errors: they end nothing and keep nothing alive.
func TestAnErrorLeavesTheFlowAsItIs(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		c.goOn()
		c.age(c.forwardKey())
		c.age(c.reverseKey())
		before := []maps.Flow{c.entry(c.forwardKey()), c.entry(c.reverseKey())}
		counts, action := c.counts(), rig.Sent
		if local {
			action = rig.Pass
		}
		for _, m := range errorsOf[f.name] {
			c.relate(c.aboutForward(m, c.backend.Addr()))
			in, _ := c.aboutReply(m, f.router()).frames(t)
			wantOutcome(t, send(t, r, c.wayIn(), in, rig.Context{}), action, maps.VerdictRelated)
		}
		after := []maps.Flow{c.entry(c.forwardKey()), c.entry(c.reverseKey())}
		if d := cmp.Diff(before, after, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
			t.Errorf("the flow has changed:\n%s", d)
		}
		if d := cmp.Diff(counts, c.counts()); d != "" {
			t.Errorf("the counts have changed:\n%s", d)
		}
	})
}

// What ebb routes may not get there, and then nobody is told: errors about
// errors would never end.
func TestAnErrorThatCannotBeSentOnIsDroppedInSilence(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRemote(t, r, "", func(c *conversation) {
		c.begin()
		x := c.aboutReply(tooBigOf(c.f), c.f.router())
		x.in.TTL = 1
		in, _ := x.frames(c.t)
		wantOutcome(c.t, send(c.t, c.r, x.hook, in, rig.Context{}), rig.Drop, maps.VerdictTTLExpired)
		x.in.TTL, x.out.TTL = 2, 1
		c.relate(x)
	})
	everyRemote(t, r, narrowNet, func(c *conversation) {
		c.begin()
		x := c.aboutReply(tooBigOf(c.f), c.f.router())
		header := x.in.L4() - x.in.L3() + 8 + len(x.quote(c.t, x.quoted)) - len(x.quoted.Payload)
		fits := make([]byte, rig.SmallMTU-header)
		x.quoted.Payload, x.known.Payload = fits, fits
		c.relate(x)
		x.quoted.Payload = slices.Concat(fits, []byte{0})
		in, _ := x.frames(c.t)
		wantOutcome(c.t, send(c.t, c.r, x.hook, in, rig.Context{}), rig.Drop, maps.VerdictTooBig)
	})
}

func TestAnErrorGoesTheSlowWayToANeighbourNobodyKnows(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRemote(t, r, unknownNet, func(c *conversation) {
		if c.onXDP() {
			return
		}
		c.begin()
		c.relate(c.aboutReply(tooBigOf(c.f), c.f.router()))
	})
}

// A client that lives on the node itself.
func TestAnErrorForTheNodeItselfGoesUpTheStack(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyRemote(t, r, "", func(c *conversation) {
		client := rig.Second4
		if c.f.client.Addr().Is6() {
			client = rig.Second6
		}
		// It has just got the address: programs do not know it yet.
		if err := r.Set.Addresses(maps.NodeAddress).Delete(client); err != nil {
			c.t.Fatal(err)
		}
		c.f.client = withAddr(c.f.client, client)
		c.forward(opening(c.proto), "")
		x := c.aboutForward(tooBigOf(c.f), c.f.router())
		x.action, x.macs = rig.Pass, true
		c.relate(x)
	})
}
