package topology

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
)

// Ways that lead nowhere, as sockets see it: what the kernel says of plain routing.

// told wants a connect to every address of the service to end with this error, in
// IPv6 with that, and a datagram to be answered by an ICMP error: sockets of UDP are not
// told of those.
func (w *world) told(what string, p *process, want, want6 error) {
	w.Helper()
	vip4, vip6 := lab.DefaultVIPs()
	for vip, want := range map[netip.Addr]error{vip4: want, vip6: want6} {
		addr := netip.AddrPortFrom(vip, httpPort).String()
		w.await(fmt.Sprintf("%s, %s to be told", what, addr), p, func() error {
			ctx, cancel := context.WithTimeout(w.Context(), netfilterGivesUp)
			defer cancel()
			if err := w.exchange(ctx, "tcp", addr); !errors.Is(err, want) {
				return fmt.Errorf("%w, want %w", err, want)
			}
			return nil
		})
		if err := w.datagramAnswered(netip.AddrPortFrom(vip, echoPort).String()); err != nil {
			w.Errorf("%s: %v", what, err)
		}
	}
}

// datagramAnswered sends datagrams until one is answered by an ICMP error.
func (w *world) datagramAnswered(addr string) error {
	ctx, cancel := context.WithTimeout(w.Context(), netfilterGivesUp)
	defer cancel()
	conn, err := w.lab.Client.Dial(ctx, "udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for before := w.unreachables(); w.unreachables() == before; {
		if _, err := conn.Write([]byte("hello")); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: no ICMP error", addr)
		case <-tick.C:
		}
	}
	return nil
}

// netfilterGivesUp is when plain routing tells at the latest: a neighbour is
// asked for three seconds long, and SYNs are sent after 1, 3 and 7.
const netfilterGivesUp = 8 * secondSYN / 3

// route makes all that leads to the addresses of a pod of one kind.
func (w *world) route(p *lab.Pod, kind int) {
	w.Helper()
	err := w.entry.Do(func() error {
		var errs []error
		for _, a := range []netip.Addr{p.Addr4, p.Addr6} {
			_, dst, err := net.ParseCIDR(netip.PrefixFrom(a, a.BitLen()).String())
			// IPv6 prefers the lower metric, and has no replacement of another type.
			errs = append(errs, err, netlink.RouteReplace(&netlink.Route{Dst: dst, Type: kind, Priority: 1}))
			if a.Is4() {
				errs = append(errs, netlink.RouteReplace(&netlink.Route{Dst: dst, Type: kind}))
			}
		}
		return errors.Join(errs...)
	})
	if err != nil {
		w.Fatal(err)
	}
}

// everyPlace runs fn with an agent and a pod that is alone, here and elsewhere, by TC and
// by XDP.
func everyPlace(t *testing.T, fn func(w *world, agent *process, pod *lab.Pod)) {
	for _, d := range []struct{ name, xdp string }{{"tc", "off"}, {"native XDP", "native"}} {
		for i, place := range []string{"here", "elsewhere"} {
			t.Run(d.name+", "+place, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				pod := w.pods[2*i]
				w.publish(pod)
				fn(w, w.startFor(d.xdp, lab.Uplink), pod)
			})
		}
	}
}

func TestWhoHasNoWayToABackendIsTold(t *testing.T) {
	everyPlace(t, func(w *world, agent *process, pod *lab.Pod) {
		w.route(pod, unix.RTN_UNREACHABLE)
		w.told("unreachable", agent, syscall.EHOSTUNREACH, syscall.ENETUNREACH)
		w.route(pod, unix.RTN_PROHIBIT)
		w.told("prohibited", agent, syscall.EHOSTUNREACH, syscall.EACCES)
	})
}

// The pod's address is nobody's on the link, and so is the other node's.
func TestWhoseBackendIsBehindADeadNeighbourIsTold(t *testing.T) {
	everyPlace(t, func(w *world, agent *process, pod *lab.Pod) {
		dead := pod.NS
		if pod.Node != w.entry {
			dead = pod.Node.NS
		}
		if err := dead.Do(silence); err != nil {
			w.Fatal(err)
		}
		if err := w.entry.Do(forget); err != nil {
			w.Fatal(err)
		}
		w.told("a dead neighbour", agent, syscall.EHOSTUNREACH, syscall.EHOSTUNREACH)
	})
}

// silence takes the addresses of all links away, so that nobody is answered any more.
func silence() error {
	return eachLink(func(l netlink.Link) error { return netlink.LinkSetARPOff(l) })
}

// forget empties the table of neighbours.
func forget() error {
	return eachLink(func(l netlink.Link) error {
		all, err := netlink.NeighList(l.Attrs().Index, netlink.FAMILY_ALL)
		for i := range all {
			if all[i].State&(unix.NUD_PERMANENT|unix.NUD_NOARP) == 0 {
				err = errors.Join(err, netlink.NeighDel(&all[i]))
			}
		}
		return err
	})
}

func eachLink(do func(netlink.Link) error) error {
	links, err := netlink.LinkList()
	for _, l := range links {
		if l.Attrs().Flags&net.FlagLoopback == 0 {
			err = errors.Join(err, do(l))
		}
	}
	return err
}

// Without an answer the packet would go to and fro between the router and the node.
func TestOtherPortsOfAnAnnouncedAddressDoNotCircle(t *testing.T) {
	someDatapaths(t, 2, func(w *world, _ *process) {
		vip4, vip6 := lab.DefaultVIPs()
		for _, vip := range []netip.Addr{vip4, vip6} {
			for _, network := range []string{"tcp", "udp"} {
				before := w.packets("no-port")
				w.answeredAtOnce(network, netip.AddrPortFrom(vip, httpPort+1).String())
				if n := w.packets("no-port") - before; n < 1 || n > 3 {
					w.Errorf("%s %s: %d packets came in, want one for each that was sent", network, vip, n)
				}
			}
		}
	})
}
