package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// What is different about SCTP. What it has in common with TCP is in the tests
// of everyConnection, its checksums are in sctpsum_test.go.

// connections are the protocols with a handshake.
var connections = []maps.Proto{maps.TCP, maps.SCTP}

// everyConnection is everyConversation for the protocols with a handshake.
func everyConnection(t *testing.T, r *rig.Rig, fn func(c *conversation)) {
	t.Helper()
	for _, proto := range connections {
		t.Run(proto.String(), func(t *testing.T) { everyConversation(t, r, proto, fn) })
	}
}

// chunk is a packet of the client with one chunk.
func (c *conversation) chunk(kind packet.Chunk, tag uint32) packet.Spec {
	in := c.spec(c.f.client, c.f.vip, packet.ACK, "")
	in.Chunk, in.Tag = kind, tag
	return in
}

// answerChunk is one of the backend.
func (c *conversation) answerChunk(kind packet.Chunk, tag uint32) packet.Spec {
	in := c.replyOf(packet.ACK, "")
	in.Chunk, in.Tag = kind, tag
	return in
}

func TestAnAssociationFromFirstToLastPacket(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.SCTP, func(c *conversation) {
		c.forwardSpec(c.chunk(packet.Init, 0))
		c.replySpec(c.answerChunk(packet.InitAck, clientTag))
		c.wantNoFlow()
		c.wantLive(0)
		c.forwardSpec(c.chunk(packet.CookieEcho, backendTag))
		c.wantConnections(1, 0)
		c.replySpec(c.answerChunk(packet.CookieAck, clientTag))
		for range 2 {
			c.goOn()
			c.forwardSpec(c.chunk(packet.Heartbeat, backendTag))
		}
		c.wantLive(1)
		c.forwardSpec(c.chunk(packet.Shutdown, backendTag))
		c.replySpec(c.answerChunk(packet.ShutdownAck, clientTag))
		c.wantFlags(0, 0)
		for range 2 { // once more
			c.forwardSpec(c.chunk(packet.ShutdownComplete, backendTag))
			c.wantState(closed)
		}
		c.wantConnections(1, 1)
		c.wantLive(0)
	})
}

// Whoever knows nothing of an association sends the tag back that it got.
func TestAnABORTOfEitherSideEndsAnAssociationByEitherTag(t *testing.T) {
	t.Parallel()
	r := lend(t)
	sides := map[string]func(c *conversation) packet.Spec{
		"client":                  func(c *conversation) packet.Spec { return c.chunk(packet.Abort, backendTag) },
		"backend":                 func(c *conversation) packet.Spec { return c.answerChunk(packet.Abort, clientTag) },
		"client, the tag it got":  func(c *conversation) packet.Spec { return reflected(c.chunk(packet.Abort, clientTag)) },
		"backend, the tag it got": func(c *conversation) packet.Spec { return reflected(c.answerChunk(packet.Abort, backendTag)) },
		"client, its last word":   func(c *conversation) packet.Spec { return reflected(c.chunk(packet.ShutdownComplete, clientTag)) },
		"backend, its last word":  func(c *conversation) packet.Spec { return c.answerChunk(packet.ShutdownComplete, clientTag) },
	}
	for name, last := range sides {
		t.Run(name, func(t *testing.T) {
			everyConversation(t, r, maps.SCTP, func(c *conversation) {
				c.handshake()
				c.goOn()
				c.wantConnections(1, 0)
				for range 2 {
					c.say(last(c))
					c.wantConnections(1, 1)
				}
				c.wantLive(0)
			})
		})
	}
}

func reflected(s packet.Spec) packet.Spec {
	s.Reflected = true
	return s
}

// say sends a packet of either side and checks what becomes of it.
func (c *conversation) say(s packet.Spec) {
	c.t.Helper()
	if s.Dst == c.f.vip {
		c.forwardSpec(s)
		return
	}
	c.replySpec(s)
}

// A guess is passed on for the other end to judge. To have it guessed before
// makes it no better.
func TestWhoDoesNotKnowTheTagEndsNothing(t *testing.T) {
	t.Parallel()
	const guess = 0xbad
	r := lend(t)
	guesses := map[string]func(c *conversation, kind packet.Chunk) packet.Spec{
		"client":                   func(c *conversation, kind packet.Chunk) packet.Spec { return c.chunk(kind, guess) },
		"backend":                  func(c *conversation, kind packet.Chunk) packet.Spec { return c.answerChunk(kind, guess) },
		"client, its own tag":      func(c *conversation, kind packet.Chunk) packet.Spec { return c.chunk(kind, clientTag) },
		"client, as if reflected":  func(c *conversation, kind packet.Chunk) packet.Spec { return reflected(c.chunk(kind, backendTag)) },
		"backend, as if reflected": func(c *conversation, kind packet.Chunk) packet.Spec { return reflected(c.answerChunk(kind, clientTag)) },
	}
	for name, forged := range guesses {
		t.Run(name, func(t *testing.T) {
			everyConversation(t, r, maps.SCTP, func(c *conversation) {
				c.handshake()
				c.goOn()
				for _, kind := range []packet.Chunk{packet.Abort, packet.ShutdownComplete, packet.Data, packet.Abort} {
					c.say(forged(c, kind))
				}
				c.wantFlags(0, 0)
				c.wantConnections(1, 0)
			})
		})
	}
}

// The backend has to judge (RFC 9260, 5.2.2).
func TestAClientThatRestartsComesToItsBackend(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.SCTP, func(c *conversation) {
		c.handshake()
		next := c.succeed()
		c.handshake()
		c.goOn()
		c.wantConnections(1, 0)
		next.wantConnections(0, 0)
	})
}

func TestAnINITAfterTheEndBeginsANewAssociation(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.SCTP, func(c *conversation) {
		c.handshake()
		c.goOn()
		c.forward(packet.RST, "")
		next := c.succeed()
		next.handshake()
		next.goOn()
		c.wantConnections(1, 1)
		next.wantConnections(1, 0)
	})
}

// RFC 9260, 8.5.1: such a packet is none.
func TestAnINITWithATagBeginsNothing(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.SCTP, func(c *conversation) {
		if c.local {
			return // where the table leads, as all of the middle of connections
		}
		c.wantSilence(c.chunk(packet.Init, 1), false)
	})
}

func TestAPortMayBeSharedByAllProtocols(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyPlace(t, r, func(t *testing.T, hook maps.Hook, f family, local bool) {
		var all []*conversation
		for _, proto := range protos {
			c := newConversation(t, r, hook, f, proto, local).serve()
			c.begin()
			all = append(all, c)
		}
		for _, c := range all {
			c.goOn()
			c.wantConnections(1, 0)
		}
	})
}

// Segments of SCTP are of any size, and the kernel does not say of which.
func TestAGSOPacketOfSCTPIsRewrittenOnce(t *testing.T) {
	t.Parallel()
	const byFrags = 0xffff
	r := lend(t)
	everyConversation(t, r, maps.SCTP, func(c *conversation) {
		if c.onXDP() {
			return // never sees one
		}
		c.begin()
		in := c.spec(c.f.client, c.f.vip, packet.ACK, string(make([]byte, 2800)))
		want := in
		want.Dst = c.backend
		action, verdict := rig.Pass, maps.VerdictToLocal
		if !c.local {
			want.Src, want.TTL = c.reverseKey().Dst, routedTTL(in)
			action, verdict = rig.Sent, maps.VerdictToRemote
		}
		got := c.runWith(c.hook, in, rig.Context{GSOSize: byFrags, GSOCount: 2})
		c.check(got, want, action, verdict)
	})
}

// Its common header without a chunk is no packet.
func TestAnSCTPPacketHasAChunk(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.SCTP, func(c *conversation) {
		in := c.first()
		b := frame(c.t, in)
		claim(b, in, in.L4()-in.L3()+15)
		wantOutcome(c.t, send(c.t, c.r, c.hook, b, rig.Context{}), rig.Pass, maps.VerdictMalformed)
	})
}
