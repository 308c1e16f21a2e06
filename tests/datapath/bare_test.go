package datapath

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// Devices whose packets begin with the IP header: real packets on a tun device.
// Clients are behind it; backends are behind it too, or behind the uplink, which has
// Ethernet, or they are neither, as those of a local pod: then the kernel routes.

// tunnelled is a conversation with a client behind a tun device.
type tunnelled struct {
	*conversation
	wires rig.Tunnels
	out   *rig.Wire // towards the backend
}

// everyTunnel runs fn for each place of the backend, family and protocol.
func everyTunnel(t *testing.T, r *rig.Rig, wires rig.Tunnels, protos []maps.Proto, fn func(c *tunnelled)) {
	t.Helper()
	places := map[string]struct {
		network string
		local   bool
		out     *rig.Wire
	}{
		"behind the uplink": {"2", false, wires.Uplink},
		"behind the tunnel": {"10", false, wires.Tun},
		"here":              {"1", true, wires.Pods},
	}
	for place, p := range places {
		for _, f := range families {
			for _, proto := range protos {
				t.Run(place+"/"+f.name+"/"+proto.String(), func(t *testing.T) {
					r.Reset(t)
					f.remote = inNetwork(f.remote, p.network)
					f.local = f.remote
					c := newConversation(t, r, maps.HookTCIngress, f, proto, p.local)
					fn(&tunnelled{conversation: c, wires: wires, out: p.out})
				})
			}
		}
	}
}

// inNetwork is backend in the network of that number, as the rig routes them.
func inNetwork(backend netip.AddrPort, number string) netip.AddrPort {
	addr := "10.244." + number + ".7"
	if backend.Addr().Is6() {
		addr = "fd00:244:" + number + "::7"
	}
	return withAddr(backend, netip.MustParseAddr(addr))
}

// wantPacket takes what leaves by w and compares it with the packet of want.
func wantPacket(t *testing.T, w *rig.Wire, what string, dst netip.Addr, proto uint8, want []byte) {
	t.Helper()
	got := w.Take(t, dst, proto)
	if got == nil {
		t.Fatalf("%s: nothing leaves", what)
	}
	framed := append(append([]byte(nil), want[:14]...), got...)
	if d := packet.Diff(rig.Unpadded(want), rig.Unpadded(framed)); d != "" {
		t.Fatalf("%s is not as it should be:\n%s", what, d)
	}
}

// say sends a packet of the client, and checks what goes to the backend. The first
// tells the source port.
func (c *tunnelled) say(in packet.Spec) {
	c.t.Helper()
	c.wires.Tun.Put(c.t, frame(c.t, in))
	want := in
	want.Dst, want.TTL = c.backend, routedTTL(in)
	got := c.out.Take(c.t, c.backend.Addr(), uint8(c.proto))
	if got == nil {
		c.t.Fatal("nothing leaves for the backend")
	}
	framed := append(make([]byte, 14), got...)
	if c.local && c.lent == 0 {
		c.lent = binary.BigEndian.Uint16(framed[in.L4():])
	} else if !c.local && c.snat == 0 {
		c.snat = sourcePort(c.t, framed, in)
	}
	want.Src = c.source()
	b := frame(c.t, want)
	copy(framed, b[:14])
	if d := packet.Diff(rig.Unpadded(b), rig.Unpadded(framed)); d != "" {
		c.t.Fatalf("to the backend (-want +got):\n%s", d)
	}
}

// hear sends a packet of the backend, and checks what goes to the client.
func (c *tunnelled) hear(in packet.Spec) {
	c.t.Helper()
	c.out.Put(c.t, frame(c.t, in))
	want := in
	want.Src, want.Dst, want.TTL = c.f.vip, c.f.client, routedTTL(in)
	wantPacket(c.t, c.wires.Tun, "the reply", c.f.client.Addr(), uint8(c.proto), frame(c.t, want))
}

// talk is a conversation from its first packet on.
func (c *tunnelled) talk() {
	c.t.Helper()
	c.say(c.first())
	if c.proto == maps.TCP {
		c.hear(c.replyOf(packet.SYN|packet.ACK, ""))
		c.say(c.spec(c.f.client, c.f.vip, packet.ACK, ""))
	} else {
		c.hear(c.replyOf(0, "first"))
	}
	for range 2 {
		c.say(c.spec(c.f.client, c.f.vip, packet.ACK, "a question"))
		c.hear(c.replyOf(packet.ACK, "an answer"))
	}
	full := c.spec(c.f.client, c.f.vip, packet.ACK, string(make([]byte, 1400)))
	c.say(full)
}

func TestDevicesWithoutEthernet(t *testing.T) {
	r := rig.New(t, answering)
	wires := r.AddTunnel(t, "192.0.2.0/24", "2001:db8:2::/64")
	t.Run("conversations", func(t *testing.T) {
		everyTunnel(t, r, wires, datagrams, func(c *tunnelled) { c.serve(); c.talk() })
	})
	t.Run("fragments", func(t *testing.T) {
		everyTunnel(t, r, wires, datagrams, func(c *tunnelled) {
			c.serve()
			c.talk()
			c.wantPieces(c.forwardPieces(fragmentID), c.wires.Tun, c.out, c.backend.Addr())
			c.wantPieces(c.replyPieces(fragmentID), c.out, c.wires.Tun, c.f.client.Addr())
		})
	})
	t.Run("ICMP errors", func(t *testing.T) {
		everyTunnel(t, r, wires, datagrams, func(c *tunnelled) {
			c.serve()
			c.talk()
			m := tooBigOf(c.f)
			c.wantRelated(c.aboutForward(m, c.f.router()), c.out, c.wires.Tun)
			c.wantRelated(c.aboutReply(m, c.f.router()), c.wires.Tun, c.out)
		})
	})
	t.Run("answers", func(t *testing.T) { testAnswersWithoutEthernet(t, r, wires) })
}

func (c *tunnelled) wantPieces(j journey, in, out *rig.Wire, dst netip.Addr) {
	c.t.Helper()
	for i := range j.in {
		in.Put(c.t, j.in[i])
		want := j.want[i]
		if c.local {
			want = hopped(want)
		}
		wantPacket(c.t, out, "a fragment", dst, uint8(c.proto), want)
	}
}

func (c *tunnelled) wantRelated(x exchange, in, out *rig.Wire) {
	c.t.Helper()
	before, want := x.frames(c.t)
	if c.local {
		want = hopped(want)
	}
	proto := uint8(1)
	if c.f.client.Addr().Is6() {
		proto = 58
	}
	in.Put(c.t, before)
	wantPacket(c.t, out, "the error", x.out.Dst.Addr(), proto, want)
}

// hopped is frame after the kernel has routed it.
func hopped(frame []byte) []byte {
	b := append([]byte(nil), frame...)
	if b[14]>>4 == 6 {
		b[14+7]--
		return b
	}
	b[14+8]--
	sum := uint32(b[14+10])<<8 | uint32(b[14+11])
	if sum += 0x100; sum > 0xffff {
		sum -= 0xffff
	}
	b[14+10], b[14+11] = byte(sum>>8), byte(sum)
	return b
}

// What a client is told by ebb itself goes back by the tunnel.
func testAnswersWithoutEthernet(t *testing.T, r *rig.Rig, wires rig.Tunnels) {
	t.Helper()
	for name, tc := range map[string]struct {
		network string // of the backend
		prepare func(c *tunnelled)
		in      func(c *tunnelled) packet.Spec
		answer  func(c *tunnelled) func([]byte) ([]byte, error)
	}{
		"no endpoints": {"2", func(c *tunnelled) { c.abandon() }, (*tunnelled).opening, (*tunnelled).refusal},
		"the middle of a connection": {"2", func(*tunnelled) {}, (*tunnelled).midway,
			func(c *tunnelled) func([]byte) ([]byte, error) {
				if c.proto == maps.TCP {
					return packet.Reset
				}
				return nil
			}},
		"a TTL that ends": {"2", func(*tunnelled) {},
			func(c *tunnelled) packet.Spec { s := c.opening(); s.TTL = 1; return s },
			func(*tunnelled) func([]byte) ([]byte, error) { return packet.TimeExceeded }},
		"too big": {"3", func(*tunnelled) {},
			func(c *tunnelled) packet.Spec { s := c.opening(); s.Payload = make([]byte, rig.SmallMTU); return s },
			func(*tunnelled) func([]byte) ([]byte, error) {
				return func(b []byte) ([]byte, error) { return packet.TooBig(b, rig.SmallMTU) }
			}},
	} {
		for _, f := range families {
			for _, proto := range datagrams {
				f.remote = inNetwork(f.remote, tc.network)
				t.Run(name+"/"+f.name+"/"+proto.String(), func(t *testing.T) {
					r.Reset(t)
					c := &tunnelled{conversation: newConversation(t, r, maps.HookTCIngress, f, proto, false), wires: wires}
					c.serve()
					tc.prepare(c)
					answer := tc.answer(c)
					if answer == nil {
						return
					}
					for shape, in := range shapes(tc.in(c)) {
						if len(in.VLANs) > 0 || shape == "long" && len(tc.in(c).Payload) > 0 {
							continue
						}
						c.wantAnswered(shape, frame(t, in), answer)
					}
				})
			}
		}
	}
	for _, f := range families {
		t.Run("ping/"+f.name, func(t *testing.T) {
			r.Reset(t)
			own(t, r, f.vip.Addr(), maps.AddressExternal)
			c := &tunnelled{conversation: newConversation(t, r, maps.HookTCIngress, f, maps.TCP, false), wires: wires}
			in := c.first()
			in.Payload = []byte("an odd number of bytes!")
			c.wantAnswered("ping", pinging(in)(t), func([]byte) ([]byte, error) { return packet.Pong(in) })
		})
	}
}

func (c *tunnelled) opening() packet.Spec { return c.first() }

func (c *tunnelled) midway() packet.Spec {
	return c.spec(c.f.client, c.f.vip, packet.ACK|packet.FIN, "midway")
}

func (c *tunnelled) refusal() func([]byte) ([]byte, error) { return c.answerTo(true) }

// wantAnswered sends what the client sends, and wants it answered.
func (c *tunnelled) wantAnswered(what string, in []byte, answer func([]byte) ([]byte, error)) {
	c.t.Helper()
	want, err := answer(in)
	if err != nil {
		c.t.Fatal(err)
	}
	proto := want[14+9]
	if want[14]>>4 == 6 {
		proto = want[14+6]
	}
	c.wires.Tun.Put(c.t, in)
	wantPacket(c.t, c.wires.Tun, what, c.f.client.Addr(), proto, want)
}
