package datapath

import (
	"encoding/binary"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

func TestAUDPChecksumOfZeroStaysZero(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.UDP, func(c *conversation) {
		c.edit = func(s *packet.Spec) { s.NoChecksum = true }
		for range 2 {
			c.forward(0, "unsummed question")
			c.reply(0, "unsummed answer")
		}
	})
}

// A datagram whose sum comes out as zero says 0xffff, because 0 is "no
// checksum"; a segment says 0, because nothing forbids it.
func TestAChecksumThatComesOutAsZero(t *testing.T) {
	t.Parallel()
	wants := map[maps.Proto]uint16{maps.UDP: 0xffff, maps.TCP: 0}
	r := lend(t)
	everySum(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin() // so that the source port is known
		translated := c.spec(f.client, c.backend, packet.ACK, "")
		if !local {
			translated = c.spec(c.reverseKey().Dst, c.backend, packet.ACK, "")
		}
		in := c.spec(f.client, f.vip, packet.ACK, "")
		in.Payload = balance(t, translated, wants[proto])
		c.forwardSpec(in)

		in = c.replyOf(packet.ACK, "")
		translated = in
		translated.Src, translated.Dst = f.vip, f.client
		in.Payload = balance(t, translated, wants[proto])
		c.replySpec(in)
	})
}

// everySum is everyCase for the protocols whose checksum is a sum.
func everySum(t *testing.T, r *rig.Rig, fn func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool)) {
	t.Helper()
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		if proto != maps.SCTP {
			fn(t, hook, f, proto, local)
		}
	})
}

// balance finds a payload with which the sum of a frame like s comes out as
// zero, and makes sure that such a frame has want in its checksum field.
func balance(t *testing.T, s packet.Spec, want uint16) []byte {
	t.Helper()
	s.Payload = make([]byte, 32)
	b := frame(t, s)
	at := checksumAt(s)
	copy(s.Payload, b[at:at+2])
	if got := binary.BigEndian.Uint16(frame(t, s)[at:]); got != want {
		t.Fatalf("the payload makes for a checksum of %#04x, want %#04x", got, want)
	}
	return s.Payload
}

// checksumAt is where the checksum of a frame stands.
func checksumAt(s packet.Spec) int {
	if s.Proto == maps.UDP {
		return s.L4() + 6
	}
	return s.L4() + 16
}

// And one that came in as 0xffff is a sum like any other.
func TestAChecksumThatWasZeroBeforeTranslation(t *testing.T) {
	t.Parallel()
	wants := map[maps.Proto]uint16{maps.UDP: 0xffff, maps.TCP: 0}
	r := lend(t)
	everySum(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		in := c.spec(f.client, f.vip, packet.ACK, "")
		in.Payload = balance(t, in, wants[proto])
		c.forwardSpec(in)
		in = c.replyOf(packet.ACK, "")
		in.Payload = balance(t, in, wants[proto])
		c.replySpec(in)
	})
}

// Odd lengths, empty and full payloads: what is not rewritten is still summed.
func TestPayloadsOfAnyLength(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyCase(t, r, func(t *testing.T, hook maps.Hook, f family, proto maps.Proto, local bool) {
		c := newConversation(t, r, hook, f, proto, local).serve()
		c.begin()
		for _, n := range []int{0, 1, 2, 63, 1000, 1431} {
			payload := make([]byte, n)
			for i := range payload {
				payload[i] = byte(255 - i)
			}
			c.forward(packet.ACK, string(payload))
			c.reply(packet.ACK, string(payload))
		}
	})
}
