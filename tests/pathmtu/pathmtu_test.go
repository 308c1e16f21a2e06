package pathmtu

import (
	"net/netip"
	"testing"
)

// modes are where packets are translated: in XDP as far as that goes, or in TC.
// With generic XDP, TC sees packets without their Ethernet header.
func modes() []string { return []string{"native", "generic", "off"} }

// Each way is narrower than its ends know, so nothing gets through unless the
// error of whoever notices reaches the one who has to send less: the pod or the
// client, neither of which knows the addresses in it before they are translated.
func TestTransfersFindOutWhatTheirWayTakes(t *testing.T) {
	for _, xdp := range modes() {
		t.Run(xdp, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, xdp)
			w.narrow()
			for family := range w.local.addrs() {
				w.wantRelated(family+": the pod of the entry node sends", "tc-ingress", w.download, w.local.addrs()[family])
				w.wantRelated(family+": the client sends to it", "tc-egress", w.upload, w.local.addrs()[family])
				w.wantRelated(family+": the other node's pod sends", "tc-ingress", w.download, w.remote.addrs()[family])
				w.wantRelated(family+": the client sends to it", "tc-ingress", w.upload, w.remote.addrs()[family])
			}
		})
	}
}

// wantRelated wants a transfer to arrive, after an error was translated at a hook.
func (w *world) wantRelated(name, hook string, transfer func(netip.Addr) error, addr netip.Addr) {
	w.Helper()
	before := w.packets(hook, "related")
	if err := transfer(addr); err != nil {
		w.Errorf("%s: %v", name, err)
	}
	if w.packets(hook, "related") == before {
		w.Errorf("%s: no error was translated at %s", name, hook)
	}
}
