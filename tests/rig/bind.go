package rig

import (
	"context"
	"net"
	"net/netip"
	"testing"
)

// Bind opens a UDP socket of the node until tb ends.
func (r *Rig) Bind(tb testing.TB, at netip.AddrPort) {
	tb.Helper()
	var conn net.PacketConn
	r.must(tb, r.World.Do(func() (err error) {
		var lc net.ListenConfig
		conn, err = lc.ListenPacket(context.Background(), "udp", at.String())
		return err
	}))
	tb.Cleanup(func() { r.must(tb, conn.Close()) })
}
