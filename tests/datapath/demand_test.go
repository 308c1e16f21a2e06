package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// By this an agent knows when links do without programs.
func TestFlowsAtPodsLinksAreCountedUntilTheyAreForgotten(t *testing.T) {
	t.Parallel()
	r := lend(t)
	everyConversation(t, r, maps.TCP, func(c *conversation) {
		want := func(when string, some bool) {
			t.Helper()
			if n := r.Collect(c.t).Pods; n > 0 != (some && c.hook == maps.HookPodIngress) {
				c.t.Errorf("%s: %d entries act at pods' links", when, n)
			}
		}
		want("nothing", false)
		c.forward(packet.SYN, "")
		want("a handshake", true)
		r.Reset(c.t)
		c.serve()
		c.begin()
		want("established", true)
		c.forward(packet.FIN|packet.ACK, "")
		c.reply(packet.FIN|packet.ACK, "")
		want("closed", true)
		r.Age(c.t, ticks(r, 61)+1)
		r.Collect(c.t)
		want("forgotten", false)
	})
}
