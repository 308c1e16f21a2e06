package datapath

import (
	"bytes"
	"testing"

	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// Connections that came in by another node so far, and whose backend is there.

var passing = rig.Config{UnknownFlow: loader.UnknownPeer}

// fromPeer makes a packet one that the node of remote backends has sent here.
func fromPeer(s *packet.Spec) { s.SrcMAC = rig.OtherMAC }

// passedOn reports whether the node of the backend may be asked about a packet that
// nobody here knows.
func passedOn(s packet.Spec) bool {
	return s.Proto == maps.TCP && s.Flags&packet.ACK != 0 && s.Flags&(packet.SYN|packet.RST) == 0
}

// everyMoved runs fn for what is the middle of a connection to a backend elsewhere.
func everyMoved(t *testing.T, r *rig.Rig, network string, fn func(c *conversation, in packet.Spec)) {
	t.Helper()
	everyRemote(t, r, network, func(c *conversation) {
		for _, s := range strays(c.proto) {
			if in := s.spec(c, "some data"); passedOn(in) && c.hook != maps.HookPodIngress {
				fn(c, in)
				c.wantNoForwardEntry()
			}
		}
	})
}

func TestTheMiddleOfAConnectionIsPassedOnToTheNodeOfItsBackend(t *testing.T) {
	t.Parallel()
	r := lendWith(t, passing)
	everyMoved(t, r, "", func(c *conversation, in packet.Spec) {
		for range 3 {
			got := c.run(c.hook, in)
			if c.onXDP() {
				wantOutcome(c.t, got, rig.Pass, maps.VerdictLeftToTC)
				continue
			}
			wantOutcome(c.t, got, rig.Sent, maps.VerdictPassedOn)
			want := in
			want.TTL = 63 // the kernel's neighbour code writes the addresses of the frame
			if !bytes.Equal(got.Frame, frame(c.t, want)) {
				c.t.Fatalf("got\n%x, want\n%x", got.Frame, frame(c.t, want))
			}
		}
	})
}

// What the backend's node sent here does not go back, what would be its last hop is not
// sent, and the backend itself, on the link, is no node.
func TestWhatCannotBePassedOnIsReset(t *testing.T) {
	t.Parallel()
	r := lendWith(t, passing)
	for name, edit := range map[string]func(*packet.Spec){
		"from the node of the backend": fromPeer,
		"the last hop":                 func(s *packet.Spec) { s.TTL = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			everyMoved(t, r, "", func(c *conversation, in packet.Spec) {
				edit(&in)
				c.wantAnswer(plain(in), maps.VerdictNoFlow, packet.Reset)
			})
		})
	}
}

// Whoever makes connections up has few of them passed on, others go on.
func TestPassingOnIsLimitedForTuplesThatAreNew(t *testing.T) {
	t.Parallel()
	r := lendWith(t, rig.Config{UnknownFlow: loader.UnknownPeer, RejectRate: 1})
	c := newConversation(t, r, maps.HookTCIngress, families[0], maps.TCP, false).serve()
	in := c.spec(c.f.client, c.f.vip, packet.ACK, "some data")
	wantOutcome(t, c.run(c.hook, in), rig.Sent, maps.VerdictPassedOn)
	passed, other := 0, in
	for ; passed < 1000; passed++ {
		other.Src = withPort(other.Src, other.Src.Port()+1)
		if got := c.run(c.hook, other); got.Verdict != maps.VerdictPassedOn {
			wantOutcome(t, got, rig.Drop, maps.VerdictRejectLimited)
			break
		}
	}
	wantBurst(t, passed+1)
	for range 1000 {
		wantOutcome(t, c.run(c.hook, in), rig.Sent, maps.VerdictPassedOn)
	}
}
