package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// Pings of load balancer addresses, with --vip-echo.

func TestAPingOfAnExternalAddressIsAnswered(t *testing.T) {
	t.Parallel()
	r := lendWith(t, answering)
	everyClient(t, r, func(c *conversation) {
		if c.onXDP() || c.proto != maps.TCP {
			return
		}
		own(c.t, c.r, c.f.vip.Addr(), maps.AddressExternal|maps.AddressNode)
		in := c.first()
		in.Payload = []byte("an odd number of bytes!")
		for _, in.VLANs = range [][]uint16{nil, {rig.VLAN}, {rig.VLAN, rig.VLAN + 1}} {
			in.TTL = 3
			got := send(c.t, c.r, c.hook, pinging(in)(c.t), rig.Context{})
			wantOutcome(c.t, got, rig.Sent, maps.VerdictEcho)
			want, err := packet.Pong(in)
			if err != nil {
				c.t.Fatal(err)
			}
			if d := packet.Diff(want, got.Frame); d != "" {
				c.t.Errorf("the answer is not as it should be:\n%s", d)
			}
		}
	})
}

// The stack may answer them.
func TestOtherPingsPass(t *testing.T) {
	t.Parallel()
	rigs := map[bool]*rig.Rig{true: lendWith(t, answering), false: lend(t)}
	for _, tc := range []struct {
		name  string
		echo  bool
		flags maps.AddressFlags
		edit  func(c *conversation, s *packet.Spec, frame []byte) []byte
	}{
		{name: "it is not asked for", flags: maps.AddressExternal | maps.AddressNode},
		{name: "an unknown address", echo: true},
		{name: "an address of the node only", echo: true, flags: maps.AddressNode},
		{name: "an answer", echo: true, flags: maps.AddressExternal, edit: func(_ *conversation, s *packet.Spec, f []byte) []byte {
			if f[s.L4()] = 0; !s.IsIPv4() {
				f[s.L4()] = 129
			}
			return f
		}},
		{name: "from many", echo: true, flags: maps.AddressExternal, edit: func(_ *conversation, _ *packet.Spec, f []byte) []byte {
			f[0] |= 1
			return f
		}},
		{name: "a fragment", echo: true, flags: maps.AddressExternal, edit: func(_ *conversation, s *packet.Spec, f []byte) []byte {
			if s.IsIPv4() {
				return fragmented(moreFragments)(*s, f)
			}
			return protocol(fragment)(*s, f)
		}},
		{name: "with options", echo: true, flags: maps.AddressExternal | maps.AddressNode, edit: func(c *conversation, s *packet.Spec, _ []byte) []byte {
			s.IPOptions, s.HopByHop = []byte{7, 8, 4, 0, 0, 0, 0, 0}, true
			return pinging(*s)(c.t)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			everyClient(t, rigs[tc.echo], func(c *conversation) {
				if c.onXDP() || c.proto != maps.TCP {
					return
				}
				own(c.t, c.r, c.f.vip.Addr(), tc.flags)
				in := c.first()
				frame := pinging(in)(c.t)
				if tc.edit != nil {
					frame = tc.edit(c, &in, frame)
				}
				got := send(c.t, c.r, c.hook, frame, rig.Context{})
				if got.Action != rig.Pass {
					c.t.Errorf("got %s and %s", got.Action, got.Verdict)
				}
			})
		})
	}
}

func TestPingsAreAnsweredWithinTheLimit(t *testing.T) {
	t.Parallel()
	r := lendWith(t, oneASecond)
	c := newConversation(t, r, maps.HookTCIngress, families[0], maps.TCP, false)
	own(t, r, c.f.vip.Addr(), maps.AddressExternal)
	ping := pinging(c.first())(t)
	for range answerBurst * 1000 {
		got := send(t, r, c.hook, ping, rig.Context{})
		if got.Verdict == maps.VerdictRejectLimited {
			wantOutcome(t, got, rig.Drop, maps.VerdictRejectLimited)
			return
		}
		wantOutcome(t, got, rig.Sent, maps.VerdictEcho)
	}
	t.Error("there is no limit")
}
