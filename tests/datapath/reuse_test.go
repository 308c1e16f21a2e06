package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// A client takes a source port again that it had used towards a backend which
// has left since: its new connection begins at once, whatever is left of the old.

// remains are the states an old connection may be left in.
var remains = map[string]func(c *conversation){
	"nobody answered": func(c *conversation) { c.forward(packet.SYN, "") },
	"nobody answered, twice": func(c *conversation) {
		c.forward(packet.SYN, "")
		c.forward(packet.SYN, "")
	},
	"answered": func(c *conversation) {
		c.forward(packet.SYN, "")
		c.reply(packet.SYN|packet.ACK, "")
	},
	"refused": func(c *conversation) {
		c.forward(packet.SYN, "")
		c.reply(packet.RST|packet.ACK, "")
	},
	"established": (*conversation).handshake,
	"half closed": func(c *conversation) {
		c.handshake()
		c.forward(packet.FIN|packet.ACK, "")
	},
	"closed": func(c *conversation) {
		c.handshake()
		c.closeByFIN()
	},
	"reset": func(c *conversation) {
		c.handshake()
		c.reply(packet.RST|packet.ACK, "")
	},
	"forward half evicted": func(c *conversation) {
		c.handshake()
		c.evict(c.forwardKey())
	},
	"reverse half evicted": func(c *conversation) {
		c.handshake()
		c.evict(c.reverseKey())
	},
}

func TestASourcePortUsedTowardsALostBackendIsUsedAgain(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for state, leave := range remains {
		for name, lose := range losses {
			t.Run(state+", "+name, func(t *testing.T) {
				everyConversation(t, r, maps.TCP, func(c *conversation) {
					leave(c)
					lose(c)
					next := c.succeed()
					next.handshake()
					next.goOn()
					next.age(next.forwardKey())
					next.goOn()
					next.wantConnections(1, 0)
				})
			})
		}
	}
}

// The new pod may even have the address of the old one.
func TestASourcePortIsUsedAgainTowardsTheNextPodWithThatAddress(t *testing.T) {
	t.Parallel()
	r := lend(t)
	for state, leave := range remains {
		t.Run(state, func(t *testing.T) {
			everyConversation(t, r, maps.TCP, func(c *conversation) {
				leave(c)
				c.setState(maps.Gone)
				next := newConversation(c.t, c.r, c.hook, c.f, c.proto, c.local).serve()
				next.handshake()
				next.goOn()
				next.wantConnections(1, 0)
				if got := next.entry(next.reverseKey()); got.Backend != next.id {
					c.t.Errorf("the reverse half is backend %d's, want %d's", got.Backend, next.id)
				}
			})
		})
	}
}
