package sockets

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ebb-lb/ebb/tests/lab"
)

// frontends returns what leads to shop/web from everywhere, by name.
func frontends() map[string]netip.Addr {
	vip4, vip6 := lab.DefaultVIPs()
	return map[string]netip.Addr{
		"ClusterIP v4":   netip.MustParseAddr("10.96.0.80"),
		"ClusterIP v6":   netip.MustParseAddr("fd00:10:96::80"),
		"VIP v4":         vip4,
		"VIP v6":         vip6,
		"external IP v4": netip.MustParseAddr(externalIP),
	}
}

// origins are where programs of the node run.
func (w *world) origins() map[string]*lab.NS {
	return map[string]*lab.NS{"pod": w.client.NS, "host": w.node.NS}
}

func TestProgramsReachServicesAndSeeWhatTheyDialled(t *testing.T) {
	w := newWorld(t)
	for origin, ns := range w.origins() {
		for name, addr := range frontends() {
			t.Run(origin+" to "+name, func(t *testing.T) {
				for network, port := range map[string]uint16{"tcp": httpPort, "udp": echoPort} {
					got, err := answering(t.Context(), ns, network, netip.AddrPortFrom(addr, port).String())
					if err != nil || !strings.HasPrefix(got, "web-") {
						t.Errorf("%s: %q, %v", network, got, err)
					}
				}
			})
		}
	}
}

func TestUnconnectedSocketsSeeWhatTheyDialled(t *testing.T) {
	w := newWorld(t)
	for origin, ns := range w.origins() {
		for name, addr := range frontends() {
			for _, bound := range []string{"0.0.0.0:0", "[::]:0"} {
				if addr.Is6() && bound == "0.0.0.0:0" {
					continue
				}
				t.Run(fmt.Sprint(origin, " by ", bound, " to ", name), func(t *testing.T) {
					network := "udp"
					if bound == "0.0.0.0:0" {
						network = "udp4"
					}
					c, err := ns.ListenPacket(t.Context(), network, bound)
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					for range 3 {
						got, err := answeringTo(c, netip.AddrPortFrom(addr, echoPort))
						if err != nil || !strings.HasPrefix(got, "web-") {
							t.Errorf("%q, %v", got, err)
						}
					}
				})
			}
		}
	}
}
