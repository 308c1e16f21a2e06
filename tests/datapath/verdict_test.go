package datapath

import (
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// provocations has the shortest way to each verdict, from a TCP service with
// one remote backend unless it makes another. Other tests look at each closely.
var provocations = map[maps.Verdict]func(c *conversation) rig.Result{
	maps.VerdictNotIP:     spoiled(etherType(0x0806)),
	maps.VerdictNotL4:     spoiled(protocol(dccp)),
	maps.VerdictMalformed: spoiled(set(0, 0x44)),
	maps.VerdictFragment:  spoiled(fragmented(185)),
	maps.VerdictExtHeaders: func(c *conversation) rig.Result {
		c.f = families[1]
		in := c.first()
		in.DstOptions = 5
		return c.run(c.hook, in)
	},
	maps.VerdictNotService: func(c *conversation) rig.Result {
		c.f.vip = otherVIP(c.f)
		return c.run(c.hook, c.first())
	},
	maps.VerdictLeftToTC: func(c *conversation) rig.Result {
		in := c.first()
		in.TTL = 1
		return c.run(maps.HookXDP, in)
	},

	maps.VerdictToLocal: func(c *conversation) rig.Result {
		return c.place(true).run(c.hook, c.first())
	},
	maps.VerdictToRemote: func(c *conversation) rig.Result {
		return c.run(c.hook, c.first())
	},
	maps.VerdictReplyLocal: func(c *conversation) rig.Result {
		c = c.place(true)
		c.forward(packet.SYN, "")
		return c.run(maps.HookTCEgress, c.replyOf(packet.SYN|packet.ACK, ""))
	},
	maps.VerdictReplyRemote: func(c *conversation) rig.Result {
		c.forward(packet.SYN, "")
		return c.run(c.hook, c.replyOf(packet.SYN|packet.ACK, ""))
	},

	maps.VerdictNoBackend: func(c *conversation) rig.Result {
		c.setState(maps.Gone)
		return c.run(c.hook, c.first())
	},
	maps.VerdictPassedOn: func(c *conversation) rig.Result {
		return c.run(c.hook, c.spec(c.f.client, c.f.vip, packet.ACK, ""))
	},
	maps.VerdictNoFlow: func(c *conversation) rig.Result {
		c.edit = fromPeer
		return c.run(c.hook, c.spec(c.f.client, c.f.vip, packet.ACK, ""))
	},
	maps.VerdictSNATExhausted: func(c *conversation) rig.Result {
		c.handshake()
		c.f = withClient(c.f, 40002)
		return c.run(c.hook, c.first())
	},
	maps.VerdictFlowConflict: func(c *conversation) rig.Result {
		c.handshake()
		c.usurp()
		c.age(c.forwardKey())
		return c.run(c.hook, c.spec(c.f.client, c.f.vip, packet.ACK, ""))
	},
	maps.VerdictNoRoute: func(c *conversation) rig.Result {
		c.f = c.f.in(prohibitedNet)
		return c.place(false).run(c.hook, c.first())
	},
	maps.VerdictTTLExpired: func(c *conversation) rig.Result {
		in := c.first()
		in.TTL = 1
		return c.run(c.hook, in)
	},
	maps.VerdictNoEndpoints: func(c *conversation) rig.Result {
		c.putService(func(s *maps.Service) { s.Cluster, s.HasEndpoints = maps.Table{}, false })
		return c.run(c.hook, c.first())
	},
	maps.VerdictNoPort: func(c *conversation) rig.Result {
		own(c.t, c.r, c.f.vip.Addr(), maps.AddressClusterIP)
		c.f.vip = withPort(c.f.vip, 81)
		return c.run(c.hook, c.first())
	},
	maps.VerdictUnallocated: func(c *conversation) rig.Result {
		c.f.vip = otherVIP(c.f)
		reserve(c.t, c.r, c.f.vip.Addr())
		return c.run(c.hook, c.first())
	},
	maps.VerdictBackendGone: func(c *conversation) rig.Result {
		c.handshake()
		c.setState(maps.Gone)
		return c.run(c.hook, c.spec(c.f.client, c.f.vip, packet.ACK, ""))
	},
	maps.VerdictRejectLimited: func(c *conversation) rig.Result {
		c.r = lendWith(c.t, oneASecond)
		c.serve().abandon()
		_, limited := c.untilLimited(c.first())
		return limited
	},
	maps.VerdictEcho: func(c *conversation) rig.Result {
		own(c.t, c.r, c.f.vip.Addr(), maps.AddressExternal)
		return send(c.t, c.r, c.hook, pinging(c.first())(c.t), rig.Context{})
	},
	maps.VerdictSourceRange: func(c *conversation) rig.Result {
		c.putService(func(s *maps.Service) { s.Restricted = true })
		return c.run(c.hook, c.first())
	},
	maps.VerdictMapFull: func(c *conversation) rig.Result {
		c.r = lendWith(c.t, tiny)
		c.serve().crammed()
		c.f = withClient(c.f, 60000)
		return c.run(c.hook, c.first())
	},
	maps.VerdictSNATUnknown: func(c *conversation) rig.Result {
		c.handshake()
		c.forget()
		return c.run(c.hook, c.replyOf(packet.ACK, ""))
	},
	maps.VerdictBackendAstray: func(c *conversation) rig.Result {
		c = c.place(true)
		c.handshake()
		c.forget()
		return c.run(c.backHook(), c.replyOf(packet.ACK, ""))
	},
	maps.VerdictNotOurs: func(c *conversation) rig.Result {
		in := c.first()
		in.DstMAC = rig.OtherMAC
		return c.run(c.hook, in)
	},
	maps.VerdictMartian: func(c *conversation) rig.Result {
		in := c.first()
		in.Src = netip.MustParseAddrPort("127.0.0.1:4000")
		return c.run(c.hook, in)
	},
	maps.VerdictLateAnswer: func(c *conversation) rig.Result {
		c = c.place(true)
		c.forward(packet.SYN, "")
		c.reply(packet.SYN|packet.ACK, "")
		second := moved(c.t, c)
		second.forward(packet.SYN, "")
		return c.run(maps.HookTCEgress, c.spec(second.backend, c.f.client, packet.SYN|packet.ACK, ""))
	},
	maps.VerdictRelated: func(c *conversation) rig.Result {
		c.begin()
		x := c.aboutForward(tooBigOf(c.f), c.f.router())
		in, _ := x.frames(c.t)
		return send(c.t, c.r, x.hook, in, rig.Context{})
	},
	maps.VerdictFragmentUnknown: func(c *conversation) rig.Result {
		own(c.t, c.r, c.f.vip.Addr(), maps.AddressExternal)
		return spoiled(fragmented(185))(c)
	},
	maps.VerdictHairpin: func(c *conversation) rig.Result {
		p := newPodTalk(c.t, c.r, c.f, c.proto, itself).serve()
		return p.run(maps.HookPodIngress, p.first())
	},
	maps.VerdictReplyHairpin: func(c *conversation) rig.Result {
		p := newPodTalk(c.t, c.r, c.f, c.proto, itself).serve()
		p.ask(packet.SYN, "")
		in, _, _, _ := p.answers(packet.SYN|packet.ACK, "", p.f.client.Port())
		return p.run(maps.HookPodIngress, in)
	},
	maps.VerdictTooBig: func(c *conversation) rig.Result {
		c.f = c.f.in(narrowNet)
		in := c.first()
		in.Payload = c.fill(in, rig.SmallMTU+1)
		return c.place(false).run(c.hook, in)
	},
	maps.VerdictFragmented: func(c *conversation) rig.Result {
		c.f = c.f.in(narrowNet)
		in := c.first()
		in.MayFragment, in.Payload = true, c.fill(in, rig.SmallMTU+1)
		return c.place(false).run(c.hook, in)
	},
}

// unprovoked are the verdicts no packet can bring about, and why.
var unprovoked = map[maps.Verdict]string{
	maps.VerdictNone:          "is the absence of one, and never counted",
	maps.VerdictRewriteFailed: "the kernel refuses only what it has no memory for",
}

func spoiled(spoil func(packet.Spec, []byte) []byte) func(c *conversation) rig.Result {
	return func(c *conversation) rig.Result {
		c.t.Helper()
		in := c.first()
		return send(c.t, c.r, c.hook, spoil(in, frame(c.t, in)), rig.Context{})
	}
}

// place returns what the same client has with a service of one backend of that place.
func (c *conversation) place(local bool) *conversation {
	c.t.Helper()
	return newConversation(c.t, c.r, c.hook, c.f, c.proto, local).serve()
}

func TestEveryVerdictCanBeProvoked(t *testing.T) {
	t.Parallel()
	r := lendWith(t, onePort)
	for v := range maps.VerdictCount {
		t.Run(v.String(), func(t *testing.T) {
			provoke, ok := provocations[v]
			if why := unprovoked[v]; ok == (why != "") {
				t.Fatalf("provoked: %t, and the reason not to is %q", ok, why)
			}
			if !ok {
				return
			}
			r.Reset(t)
			c := newConversation(t, r, maps.HookTCIngress, families[0], maps.TCP, false).serve()
			if got := provoke(c); got.Verdict != v {
				t.Errorf("got %s", got.Verdict)
			}
		})
	}
}
