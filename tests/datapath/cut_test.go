package datapath

import (
	"bytes"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// Packets that are larger than their way, and may be fragmented (RFC 1812, 4.2.2.7).

// cutSize is what a piece on the narrow way holds behind an IP header without options.
const cutSize = (rig.SmallMTU - 20) &^ 7

// everyCut is everyRemote for what TC cuts on the narrow way.
func everyCut(t *testing.T, fn func(c *conversation)) {
	t.Helper()
	t.Parallel()
	everyRemote(t, lend(t), narrowNet, func(c *conversation) {
		if c.onXDP() || !c.f.client.Addr().Is4() || c.proto == maps.SCTP {
			return
		}
		fn(c)
	})
}

// wantCut puts in through the hook and wants these pieces to come in instead.
func (c *conversation) wantCut(in []byte, want [][]byte) {
	c.t.Helper()
	captured := c.r.Capture(c.t)
	got := send(c.t, c.r, c.hook, in, rig.Context{})
	wantOutcome(c.t, got, rig.Sent, maps.VerdictFragmented)
	for i, frame := range append(captured(len(want)-1), got.Frame) {
		if !bytes.Equal(bytes.TrimRight(frame, "\x00"), bytes.TrimRight(want[i], "\x00")) {
			c.t.Errorf("piece %d: %s", i, packet.Diff(want[i], frame))
		}
	}
}

func (c *conversation) pieces(s packet.Spec, size int) [][]byte {
	c.t.Helper()
	all, err := s.Fragments(1, size)
	if err != nil {
		c.t.Fatal(err)
	}
	return all
}

func TestAPacketThatMayBeFragmentedIsCutToItsWay(t *testing.T) {
	everyCut(t, func(c *conversation) {
		c.begin()
		in := c.spec(c.f.client, c.f.vip, packet.ACK, "")
		in.MayFragment = true
		for _, bytes := range []int{rig.SmallMTU + 1, rig.SmallMTU + 100, 2*cutSize + 20, 2*cutSize + 21} {
			in.Payload = text(len(c.fill(in, bytes)))
			c.wantCut(frame(c.t, in), c.pieces(in, cutSize))
		}
		in.Payload = text(len(c.fill(in, rig.SmallMTU)))
		c.forwardSpec(in)
	})
}

func TestTheFirstDatagramOfAFlowMayBeCut(t *testing.T) {
	everyCut(t, func(c *conversation) {
		if c.proto != maps.UDP {
			return
		}
		in := c.first()
		in.MayFragment = true
		in.Payload = text(len(c.fill(in, rig.SmallMTU+1)))
		c.wantCut(frame(c.t, in), c.pieces(in, cutSize))
	})
}

func TestFragmentsAreCutAgain(t *testing.T) {
	everyCut(t, func(c *conversation) {
		c.begin()
		in := c.spec(c.f.client, c.f.vip, packet.ACK, "")
		in.MayFragment = true
		in.Payload = text(len(c.fill(in, 20+6*cutSize)))
		all := c.pieces(in, cutSize)
		for i, piece := range c.pieces(in, 2*cutSize) {
			c.wantCut(piece, all[2*i:2*i+2])
			if i == 0 { // which has to be remembered for the others
				send(c.t, c.r, c.hook, all[0], rig.Context{})
			}
		}
	})
}

// Options that are not to be copied are in the first piece only (RFC 791).
func TestOptionsOfAPacketThatIsCut(t *testing.T) {
	everyCut(t, func(c *conversation) {
		c.begin()
		for _, o := range []struct{ option, later []byte }{
			{[]byte{7, 8, 4, 0, 0, 0, 0, 0}, []byte{1, 1, 1, 1, 1, 1, 1, 1}},                           // record route
			{[]byte{0x94, 4, 0, 0}, []byte{0x94, 4, 0, 0}},                                             // router alert
			{[]byte{68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0}, []byte{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}}, // timestamp
		} {
			in := c.spec(c.f.client, c.f.vip, packet.ACK, "")
			in.MayFragment, in.IPOptions = true, o.option
			in.Payload = text(len(c.fill(in, rig.SmallMTU+1)))
			size := (rig.SmallMTU - 20 - len(o.option)) &^ 7
			want := c.pieces(in, size)
			for _, later := range want[1:] {
				copy(later[34:], o.later)
				settleHeader(later[14 : 34+len(o.later)])
			}
			c.wantCut(frame(c.t, in), want)
		}
	})
}

// They cannot be taken apart here. (TCP can, but not in a test run: see tests/pathmtu.)
func TestDatagramsThatTheKernelHasPutTogetherAreAnswered(t *testing.T) {
	everyCut(t, func(c *conversation) {
		if c.proto != maps.UDP {
			return
		}
		c.begin()
		in := c.spec(c.f.client, c.f.vip, packet.ACK, "")
		in.MayFragment = true
		fits := len(c.fill(in, rig.SmallMTU))
		in.Payload = text(2 * fits)
		got := c.runWith(c.hook, in, rig.Context{GSOSize: uint32(fits) + 10, GSOCount: 2})
		wantOutcome(c.t, got, rig.Sent, maps.VerdictTooBig)
	})
}

// text is n bytes that differ, none of them zero.
func text(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i%251) + 1
	}
	return b
}

// dontFragment sets DF in a frame, if that is one of IPv4: it must not be cut.
func dontFragment(frame []byte) {
	if ip := frame[14:34]; ip[0]>>4 == 4 {
		ip[6] |= 0x40
		settleHeader(ip)
	}
}

// settleHeader makes the checksum of an IPv4 header right.
func settleHeader(ip []byte) {
	ip[10], ip[11] = 0, 0
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(ip[i])<<8 | uint32(ip[i+1])
	}
	sum = sum&0xffff + sum>>16
	sum = ^(sum&0xffff + sum>>16)
	ip[10], ip[11] = byte(sum>>8), byte(sum)
}
