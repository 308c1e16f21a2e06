package pathmtu

import (
	"net/netip"
	"testing"
	"time"
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

// Datagrams larger than any link go in fragments, both ways.
func TestDatagramsInFragmentsArriveWhole(t *testing.T) {
	for _, xdp := range modes() {
		t.Run(xdp, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, xdp)
			for name, s := range map[string]service{"local": w.local, "remote": w.remote} {
				for family, addr := range s.addrs() {
					w.wantWhole(name+", "+family, name, addr)
				}
			}
		})
	}
}

// wantWhole wants datagrams to be echoed, by way of translations that count for
// every fragment of them.
func (w *world) wantWhole(what, place string, addr netip.Addr) {
	w.Helper()
	back := map[string]string{"local": "tc-egress", "remote": "tc-ingress"}[place]
	forth := func() int { return w.packets("tc-ingress", "to-"+place) }
	reply := func() int { return w.packets(back, "reply-"+place) }
	for _, size := range datagrams() {
		f, r := forth(), reply()
		if err := w.exchange(addr, size, patience); err != nil {
			w.Errorf("%s, %d bytes: %v", what, size, err)
		}
		least := size / 1500
		if forth()-f < least || reply()-r < least {
			w.Errorf("%s, %d bytes: %d packets there and %d back, want at least %d fragments", what, size, forth()-f, reply()-r, least)
		}
	}
}

// Nobody repeats a datagram that was too big for the way but its sender, who
// has been told by then: of a fragment, in IPv6.
func TestFragmentsFindOutWhatTheirWayTakes(t *testing.T) {
	const retry = 200 * time.Millisecond
	for _, xdp := range modes() {
		t.Run(xdp, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, xdp)
			w.narrow()
			for _, s := range []service{w.local, w.remote} {
				for family, addr := range s.addrs() {
					began := time.Now()
					err := w.exchange(addr, datagrams()[0], retry)
					for err != nil && time.Since(began) < patience {
						err = w.exchange(addr, datagrams()[0], retry)
					}
					if err != nil {
						t.Errorf("%s, %s: %v", s.name, family, err)
					}
				}
			}
			if w.packets("tc-ingress", "related") == 0 || w.packets("tc-egress", "related") == 0 {
				t.Error("nobody was told anything")
			}
		})
	}
}
