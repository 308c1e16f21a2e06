package datapath

import (
	"slices"
	"strings"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

const (
	fragmentID   = 0x1234
	fragmentSize = 64 // bytes
	pieces       = 3
)

// long makes s so long that it is fragmented into pieces.
func long(s packet.Spec) packet.Spec {
	header := 8
	if s.Proto == maps.TCP {
		header = 20
	}
	s.Payload = []byte(strings.Repeat("fragment", pieces*fragmentSize/8))[:pieces*fragmentSize-header-5]
	return s
}

func cutUp(t *testing.T, s packet.Spec, id uint32) [][]byte {
	t.Helper()
	f, err := s.Fragments(id, fragmentSize)
	if err != nil {
		t.Fatal(err)
	}
	if len(f) != pieces {
		t.Fatalf("%d fragments, want %d", len(f), pieces)
	}
	return f
}

// journey is a datagram as it comes, and as it is to go on.
type journey struct {
	in, want [][]byte
	hook     maps.Hook
	action   rig.Action
	verdict  maps.Verdict
	macs     bool // are known
}

// forwardPieces is a packet of the client, in fragments. The flow has begun.
func (c *conversation) forwardPieces(id uint32) journey {
	c.t.Helper()
	in := long(c.spec(c.f.client, c.f.vip, packet.ACK, ""))
	want := in
	want.Dst = c.backend
	j := journey{hook: c.wayIn(), action: rig.Pass, verdict: maps.VerdictToLocal, macs: true}
	if !c.local {
		want.Src, want.TTL = c.reverseKey().Dst, routedTTL(in)
		j.action, j.verdict, j.macs = rig.Sent, maps.VerdictToRemote, false
	}
	j.in, j.want = cutUp(c.t, in, id), cutUp(c.t, want, id)
	return j
}

// replyPieces is a packet of the backend, in fragments.
func (c *conversation) replyPieces(id uint32) journey {
	c.t.Helper()
	in := long(c.replyOf(packet.ACK, ""))
	want := in
	want.Src = c.f.vip
	j := journey{hook: c.backHook(), action: rig.Pass, verdict: maps.VerdictReplyLocal, macs: true}
	if !c.local {
		want.Dst, want.TTL = c.f.client, routedTTL(in)
		j.hook, j.action, j.verdict, j.macs = c.wayIn(), rig.Sent, maps.VerdictReplyRemote, false
	}
	j.in, j.want = cutUp(c.t, in, id), cutUp(c.t, want, id)
	return j
}

// travel sends the i-th piece and checks what becomes of it. XDP leaves it to TC.
func (c *conversation) travel(j journey, i int) {
	c.t.Helper()
	if c.onXDP() && j.hook == c.wayIn() {
		wantOutcome(c.t, send(c.t, c.r, c.hook, j.in[i], rig.Context{}), rig.Pass, maps.VerdictFragment)
	}
	got := send(c.t, c.r, j.hook, j.in[i], rig.Context{})
	wantOutcome(c.t, got, j.action, j.verdict)
	want := slices.Clone(j.want[i])
	if !j.macs {
		copy(want[:12], got.Frame[:12])
	}
	if d := packet.Diff(want, got.Frame); d != "" {
		c.t.Fatalf("piece %d is not as it should be:\n%s", i, d)
	}
}

func (c *conversation) travelAll(j journey) {
	c.t.Helper()
	for i := range j.in {
		c.travel(j, i)
	}
}
