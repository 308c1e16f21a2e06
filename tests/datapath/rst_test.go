package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// Which RST ends a connection: RFC 5961, 3.2, as netfilter has it. All others
// are passed on, for the other end to judge, and change nothing.

// By now each side has sent so many bytes that the other has acknowledged, and
// so many more that it has not.
const (
	heard   = 5000
	unheard = 700
)

// segment is one of c with numbers of its own.
func (c *conversation) segment(byBackend bool, flags packet.Flags, seq, ack uint32, payload string) packet.Spec {
	c.t.Helper()
	if byBackend {
		s := c.replyOf(flags, payload)
		s.Seq, s.Ack = backendSeq+seq, clientSeq+ack
		return s
	}
	s := c.spec(c.f.client, c.f.vip, flags, payload)
	s.Seq, s.Ack = clientSeq+seq, backendSeq+ack
	return s
}

// transfer leaves c where both sides have acknowledged what they heard, and more
// is under way.
func (c *conversation) transfer() {
	c.t.Helper()
	c.handshake()
	for _, byBackend := range []bool{false, true} {
		c.say(c.segment(byBackend, packet.PSH|packet.ACK, heard, heard, string(make([]byte, unheard))))
	}
}

// reset is a RST of one side.
func (c *conversation) reset(byBackend bool, seq uint32) packet.Spec {
	c.t.Helper()
	return c.segment(byBackend, packet.RST, seq, 0, "")
}

var sides = map[string]bool{"client": false, "backend": true}

func TestARSTWithTheExactNumberEndsAConnection(t *testing.T) {
	t.Parallel()
	r := lend(t)
	exact := map[string]uint32{"the last acknowledged": heard, "the end of its last segment": heard + unheard}
	for side, byBackend := range sides {
		for name, seq := range exact {
			t.Run(side+", "+name, func(t *testing.T) {
				everyConversation(t, r, maps.TCP, func(c *conversation) {
					c.transfer()
					for range 2 { // sent again
						c.say(c.reset(byBackend, seq))
						c.wantState(closed)
						c.wantConnections(1, 1)
					}
					c.wantLive(0)
				})
			})
		}
	}
}

func TestABlindRSTEndsNothing(t *testing.T) {
	t.Parallel()
	r := lend(t)
	wrong := map[string]uint32{
		"one before the last acknowledged": heard - 1,
		"one after it":                     heard + 1,
		"one before the end":               heard + unheard - 1,
		"one after the end":                heard + unheard + 1,
		"in the window":                    heard + 60_000,
		"within 8 MB":                      heard + 4<<20,
		"far":                              heard + 1<<31,
		"0":                                ^uint32(clientSeq) + 1,
	}
	for side, byBackend := range sides {
		for name, seq := range wrong {
			t.Run(side+", "+name, func(t *testing.T) {
				everyConversation(t, r, maps.TCP, func(c *conversation) {
					c.transfer()
					c.say(c.reset(byBackend, seq))
					c.wantState(established)
					c.wantFlags(0, 0)
					c.wantConnections(1, 0)
					c.say(c.segment(!byBackend, packet.ACK, heard+unheard, heard, "")) // challenge ACK
					c.wantState(established)
					c.wantConnections(1, 0)
				})
			})
		}
	}
}

// The whole range in steps of 8 MB, as a blind attacker would.
func TestASweepOfRSTsEndsNothing(t *testing.T) {
	t.Parallel()
	const step = 8 << 20
	r := lend(t)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		c.transfer()
		for _, byBackend := range []bool{false, true} {
			var frames [][]byte
			for seq := uint64(12345); seq < 1<<32; seq += step {
				frames = append(frames, frame(c.t, c.reset(byBackend, uint32(seq))))
			}
			hook := c.hook
			if byBackend && c.local {
				hook = c.backHook()
			}
			c.r.Flood(c.t, hook, frames)
		}
		c.wantState(established)
		c.wantConnections(1, 0)
	})
}

// Between the handshake and the first data the SYN-ACK, or the ACK, is all that
// says where the other side's numbers stand.
func TestABlindRSTRightAfterTheHandshakeEndsNothing(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for side, byBackend := range sides {
		t.Run(side, func(t *testing.T) {
			everyConversation(t, r, maps.TCP, func(c *conversation) {
				c.handshake()
				for _, seq := range []uint32{^uint32(0), 1, 1000, 1 << 31} {
					c.say(c.reset(byBackend, seq))
					c.wantState(established)
				}
				c.say(c.reset(byBackend, 0))
				c.wantState(closed)
				c.wantConnections(1, 1)
			})
		})
	}
}

// It was somebody else's: its alleged sender goes on.
func TestAConnectionWhoseResetSenderGoesOnIsOpenAgain(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for side, byBackend := range sides {
		t.Run(side, func(t *testing.T) {
			everyConversation(t, r, maps.TCP, func(c *conversation) {
				c.transfer()
				c.say(c.reset(byBackend, heard))
				c.wantState(closed)
				c.say(c.segment(byBackend, packet.ACK, heard+unheard, heard+unheard, "that was not me"))
				c.wantState(established)
				c.wantFlags(0, 0)
				c.wantConnections(2, 1)
				c.goOn()
				c.wantLive(1)
			})
		})
	}
}

// What the other side had under way when the RST came is late; what it says a
// tick later, a challenge ACK or data, shows that it did not believe it.
func TestAConnectionIsOpenAgainWhenTheOtherSideGoesOnLater(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for side, byBackend := range sides {
		t.Run(side, func(t *testing.T) {
			everyConversation(t, r, maps.TCP, func(c *conversation) {
				c.transfer()
				c.say(c.reset(byBackend, heard))
				c.wantState(closed)
				c.r.Age(c.t, 2)
				c.say(c.segment(!byBackend, packet.ACK, heard+unheard, heard, ""))
				c.wantState(established)
				c.wantLive(1)
				c.goOn()
			})
		})
	}
}

func TestWhatWasUnderWayDoesNotUndoAnRST(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for side, byBackend := range sides {
		t.Run(side, func(t *testing.T) {
			everyConversation(t, r, maps.TCP, func(c *conversation) {
				c.inATick(func() {
					c.transfer()
					c.say(c.reset(byBackend, heard))
					c.say(c.segment(!byBackend, packet.PSH|packet.ACK, heard+unheard, heard, "late"))
				}, func() {
					c.wantState(closed)
					c.wantConnections(1, 1)
				})
			})
		})
	}
}

// inATick has something happen within one tick, and then looks.
func (c *conversation) inATick(happen, look func()) {
	c.t.Helper()
	for range 4 {
		c.r.ResetFlows(c.t)
		c.snat, c.base = 0, c.counted()
		before := tick(c.t, c.r)
		happen()
		if tick(c.t, c.r) == before {
			look()
			return
		}
	}
	c.t.Skip("the machine is too slow: no four packets in one tick")
}

// counted is all that the backend's index has done.
func (c *conversation) counted() maps.BackendCounts {
	c.t.Helper()
	n, err := c.r.Set.Stats().Get(c.id)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// It has more to say after all: the FIN was a forged one, or of an old connection.
func TestASideThatSendsMoreTakesItsFINBack(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for side, byBackend := range sides {
		t.Run(side, func(t *testing.T) {
			everyConversation(t, r, maps.TCP, func(c *conversation) {
				c.transfer()
				const end = heard + unheard
				c.say(c.segment(byBackend, packet.FIN|packet.ACK, end, heard, ""))
				c.say(c.segment(byBackend, packet.ACK, end+1, heard, "")) // no data
				c.say(c.segment(byBackend, packet.PSH|packet.ACK, end, heard, "more"))
				c.say(c.segment(!byBackend, packet.FIN|packet.ACK, heard+unheard, heard+unheard, ""))
				c.wantState(established)
				c.wantConnections(1, 0)
				c.say(c.segment(byBackend, packet.FIN|packet.ACK, end+4, heard, ""))
				c.wantState(closed)
				c.wantConnections(1, 1)
			})
		})
	}
}
