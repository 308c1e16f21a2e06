package pathmtu

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
)

// entryMTU is what the ways from the entry node take, to clients and to other nodes.
const entryMTU = 1400

// narrowEntry makes nobody but the entry node notice what the ways take.
func (w *world) narrowEntry() {
	w.Helper()
	second := w.lab.Nodes[1]
	client4, _ := lab.ClientAddrs()
	err := w.entry.Do(func() error {
		return errors.Join(
			detour(second.PodCIDR4, second.Addr4, entryMTU),
			detour(host(client4), gateway(unix.AF_INET), entryMTU))
	})
	if err != nil {
		w.Fatal(err)
	}
}

// mayFragment has a socket send with DF clear, whatever it has learned of the way.
func mayFragment(conn syscall.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT)
	})
	return errors.Join(err, failed)
}

// Who sends with DF clear is told nothing and repeats nothing: the first datagram
// has to arrive, both ways, and so have all segments.
func TestWhatMayBeFragmentedIsFragmented(t *testing.T) {
	for _, xdp := range modes() {
		t.Run(xdp, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, xdp)
			w.narrowEntry()
			w.control = mayFragment
			for name, addr := range map[string]netip.Addr{"local": w.local.vip4, "remote": w.remote.vip4} {
				w.wantFragmented(name, addr)
			}
			for _, hook := range []string{"tc-ingress", "tc-egress"} {
				if n := w.packets(hook, "too-big"); n > 0 {
					t.Errorf("%d packets are too big at %s", n, hook)
				}
			}
		})
	}
}

func (w *world) wantFragmented(name string, addr netip.Addr) {
	w.Helper()
	// One that fits, ones that do not, and fragments that do not.
	for _, size := range []int{entryMTU - 28, entryMTU - 27, 1472, 4000, 8000} {
		before := w.packets("tc-ingress", "fragmented")
		if err := w.exchange(addr, size, patience); err != nil {
			w.Errorf("%s, a datagram of %d bytes: %v", name, size, err)
		}
		// There, and where the backend is elsewhere back as well.
		cut := w.packets("tc-ingress", "fragmented") - before
		if want := size+28 > entryMTU && name == "remote"; want != (cut >= 2) {
			w.Errorf("%s, a datagram of %d bytes: %d packets were fragmented", name, size, cut)
		}
	}
	before := w.packets("tc-ingress", "fragmented")
	if err := w.upload(addr); err != nil {
		w.Errorf("%s, upload: %v", name, err)
	}
	if name == "remote" && w.packets("tc-ingress", "fragmented") == before {
		w.Errorf("%s: no segment was fragmented", name)
	}
}
