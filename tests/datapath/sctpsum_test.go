package datapath

import (
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// Checksums of SCTP. That those of ordinary packets are right each test checks
// by the frame it wants.

// sctpCheck is where in the common header it stands.
const sctpCheck = 8

// everyLength are lengths of layer 3 with every digit in base 16 at every place.
func everyLength() (lengths []int) {
	for digit := range 16 {
		for _, shift := range []int{0, 4, 8, 12} {
			lengths = append(lengths, 0x1284&^(15<<shift)|digit<<shift)
		}
		lengths = append(lengths, 0xfff0+digit)
	}
	return lengths
}

// The programs see but the beginning of a packet, and its length in a header.
func TestTheChecksumFollowsThePortsWhateverTheLength(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.SCTP, func(c *conversation) {
		if !c.local {
			return // a packet has to fit its way
		}
		c.begin()
		for _, n := range everyLength() {
			in := c.spec(c.f.client, c.f.vip, packet.ACK, "x")
			b := frame(c.t, in)
			claim(b, in, n)
			got := send(c.t, c.r, c.hook, b, rig.Context{})
			wantOutcome(c.t, got, rig.Pass, maps.VerdictToLocal)
			c.wantChange(b, got.Frame, in, n)
		}
	})
}

// claim makes a frame say that it has so many bytes of layer 3.
func claim(b []byte, s packet.Spec, bytes int) {
	if s.IsIPv4() {
		binary.BigEndian.PutUint16(b[s.L3()+2:], uint16(bytes))
		return
	}
	binary.BigEndian.PutUint16(b[s.L3()+4:], uint16(bytes-(s.L4()-s.L3())))
}

// wantChange checks that the checksum changed by as much as that of a packet of
// this length does if its ports change likewise.
func (c *conversation) wantChange(in, out []byte, s packet.Spec, bytes int) {
	c.t.Helper()
	before, after := make([]byte, bytes-(s.L4()-s.L3())), make([]byte, bytes-(s.L4()-s.L3()))
	copy(before, in[s.L4():s.L4()+4])
	copy(after, out[s.L4():s.L4()+4])
	want := castagnoli(before) ^ castagnoli(after)
	got := checkOf(in, s) ^ checkOf(out, s)
	if got != want || want == 0 {
		c.t.Fatalf("%d bytes: the checksum changes by %#08x, want %#08x", bytes, got, want)
	}
}

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func checkOf(frame []byte, s packet.Spec) uint32 {
	return binary.LittleEndian.Uint32(frame[s.L4()+sctpCheck:])
}

// What fills a frame up to the least that Ethernet takes is not of the packet.
func TestPaddingOfAFrameIsNotOfTheChecksum(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.SCTP, func(c *conversation) {
		c.begin()
		in := c.spec(c.f.client, c.f.vip, packet.ACK, "")
		padding := []byte(strings.Repeat("\xa5", 9))
		got := send(c.t, c.r, c.hook, append(frame(c.t, in), padding...), rig.Context{})
		want := in
		want.Dst = c.backend
		if !c.local {
			want.Src, want.TTL = c.reverseKey().Dst, routedTTL(in)
		}
		w := append(frame(c.t, want), padding...)
		copy(w, got.Frame[:12])
		if d := packet.Diff(w, got.Frame); d != "" {
			c.t.Error(d)
		}
	})
}

// The receiver is to find out.
func TestAWrongChecksumStaysAsWrong(t *testing.T) {
	t.Parallel()
	const wrong = 0x8000_0101
	r := lend(t)
	everyConversation(t, r, maps.SCTP, func(c *conversation) {
		c.begin()
		in := c.spec(c.f.client, c.f.vip, packet.ACK, "long enough not to be padded")
		b := frame(c.t, in)
		binary.LittleEndian.PutUint32(b[in.L4()+sctpCheck:], checkOf(b, in)^wrong)
		got := send(c.t, c.r, c.hook, b, rig.Context{}).Frame
		segment := append([]byte(nil), got[in.L4():]...)
		binary.LittleEndian.PutUint32(segment[sctpCheck:], 0)
		if off := castagnoli(segment) ^ checkOf(got, in); off != wrong {
			c.t.Errorf("the checksum is wrong by %#x, was by %#x", off, uint32(wrong))
		}
	})
}

// Nothing but addresses changes, which the checksum does not cover.
func TestWithoutPortTranslationTheChecksumStays(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyPlace(t, r, func(t *testing.T, hook maps.Hook, f family, local bool) {
		if !local {
			return
		}
		c := newConversation(t, r, hook, f, maps.SCTP, true)
		c.backend = withPort(c.backend, f.vip.Port())
		c.serve()
		c.begin()
		c.goOn()
		in := c.spec(f.client, f.vip, packet.ACK, "x")
		b := frame(t, in)
		binary.LittleEndian.PutUint32(b[in.L4()+sctpCheck:], 0)
		if got := send(t, r, hook, b, rig.Context{}); checkOf(got.Frame, in) != 0 {
			t.Errorf("the checksum became %#x", checkOf(got.Frame, in))
		}
	})
}

// Zero is a checksum like any other, before and after. TC has to tell it from
// one that the kernel has yet to make.
func TestAnSCTPChecksumThatIsOrBecomesZero(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.SCTP, func(c *conversation) {
		c.begin()
		in := c.spec(c.f.client, c.f.vip, packet.ACK, string(make([]byte, 32)))
		out := in
		out.Dst = c.backend
		if !c.local {
			out.Src = c.reverseKey().Dst
		}
		for _, s := range []packet.Spec{in, out} {
			in.Payload = zeroSum(c.t, s)
			c.forwardSpec(in)
		}
		in = c.replyOf(packet.ACK, string(make([]byte, 32)))
		in.Payload = zeroSum(c.t, in)
		c.replySpec(in)
	})
}

// zeroSum is the payload of s with other last four bytes, so that the checksum
// of s is zero.
func zeroSum(t *testing.T, s packet.Spec) []byte {
	t.Helper()
	b := frame(t, s)
	segment := b[s.L4() : len(b)-4]
	binary.LittleEndian.PutUint32(segment[sctpCheck:], 0)
	// Backwards from the register that stands for zero, over four bytes.
	table, register := crc32.MakeTable(crc32.Castagnoli), ^uint32(0)
	for range 4 {
		for i, entry := range table {
			if entry>>24 == register>>24 {
				register = (register^entry)<<8 | uint32(i)
				break
			}
		}
	}
	payload := s.Payload[:len(s.Payload)-4]
	s.Payload = binary.LittleEndian.AppendUint32(payload, register^^castagnoli(segment))
	if sum := checkOf(frame(t, s), s); sum != 0 {
		t.Fatalf("the payload makes for a checksum of %#x", sum)
	}
	return s.Payload
}

// A NIC that sums up all of a packet: what changes in it changes there. The
// kernel compares.
func TestTheSumOfANICFollowsEveryChange(t *testing.T) {
	t.Parallel()
	r := lend(t)
	if !r.Sums() {
		t.Skip("missing feature: test runs with CHECKSUM_COMPLETE")
	}
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if hook == maps.HookXDP {
			return // there is no sum yet
		}
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		for range 2 { // by the kernel's neighbour code, and by what is remembered
			c.wantSummed(hook, c.spec(f.client, f.vip, packet.ACK, "an odd length"))
		}
		if local {
			hook = maps.HookTCEgress
		}
		c.wantSummed(hook, c.replyOf(packet.ACK, "an odd length"))
	})
}

func (c *conversation) wantSummed(hook maps.Hook, in packet.Spec) {
	c.t.Helper()
	if err := c.r.RunSummed(hook, frame(c.t, in)); err != nil {
		c.t.Fatal(err)
	}
}
