package topology

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// There and back: the kernel's routes decide where a backend is, which address flows
// have, and how answers leave.

// everyMode runs fn with an agent that is told its uplink, with XDP and without.
func everyMode(t *testing.T, cfg lab.Config, fn func(w *world)) {
	for _, xdp := range []string{"native", "off"} {
		t.Run("xdp "+xdp, func(t *testing.T) {
			t.Parallel()
			cfg.UplinkPeer = lab.NativeXDPPeer()
			w := newWorldIn(t, cfg)
			w.startFor(xdp, lab.Uplink)
			fn(w)
		})
	}
}

// startFor starts an agent for one uplink, and waits until it is ready.
func (w *world) startFor(xdp, uplink string) *process {
	w.Helper()
	p := w.startAgentWith("--health-responder", "off", "--xdp", xdp, "--uplink", uplink)
	w.await("the agent to be ready", p, func() error { return w.healthy() })
	return p
}

// publishNameless makes one address of each family the only endpoint, on no node.
func (w *world) publishNameless(v4, v6 netip.Addr) {
	w.Helper()
	nameless := func(family string, a netip.Addr) string {
		p := &lab.Pod{Node: w.entry, Addr4: v4, Addr6: v6}
		text := sliceManifest(family, []*lab.Pod{p}, func(*lab.Pod) netip.Addr { return a })
		return strings.ReplaceAll(text, ", nodeName: "+w.entry.Name(), "")
	}
	w.write("endpoints.yaml", nameless("IPv4", v4)+"---\n"+nameless("IPv6", v6))
}

// wantAlone wants both virtual addresses to be served by name, once it is the only one.
func (w *world) wantAlone(name string) {
	w.Helper()
	w.awaitAlone(name)
	vip4, vip6 := lab.DefaultVIPs()
	w.wantTransfer(vip4)
	w.wantTransfer(vip6)
}

func TestEndpointsOfNoNodeAreReachedWhereTheirRoutesLead(t *testing.T) {
	t.Parallel()
	everyMode(t, lab.Config{}, func(w *world) {
		suite.ServePod(w, w.entry.NS, "host", pod.HTTPPort, pod.UDPPort)
		here, there := w.pods[0], w.pods[2]
		w.publishNameless(here.Addr4, here.Addr6)
		w.wantAlone(here.Name())
		w.publishNameless(there.Addr4, there.Addr6)
		w.wantAlone(there.Name())
		w.publishNameless(w.entry.Addr4, w.entry.Addr6)
		w.wantAlone("host")
	})
}

// To other nodes packets go by a tunnel, with its address: a strict reverse path filter
// there lets nothing else pass. What a pod answers to a client of its own network plugin's
// range leaves by the tunnel, too.
func TestFlowsHaveTheAddressOfTheTunnelTheyLeaveBy(t *testing.T) {
	t.Parallel()
	everyMode(t, lab.Config{Overlay: true}, func(w *world) {
		other := w.lab.Nodes[1]
		err := other.Do(func() error {
			for _, dev := range []string{"all", lab.PodTunnel, lab.Uplink} {
				if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+dev+"/rp_filter", []byte("1"), 0); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			w.Fatal(err)
		}
		w.publish(w.pods[2])
		w.wantAlone(w.pods[2].Name())
		w.publish(w.pods[0])
		w.wantAlone(w.pods[0].Name())
	})
}

// A pod's packets leave by a second device, because of a rule for its address, and the
// network behind that takes no other source. Answers have the address the client asked,
// and leave as the kernel routes that.
func TestAnswersLeaveByTheRouteOfTheAddressTheyHave(t *testing.T) {
	t.Parallel()
	for _, xdp := range []string{"native", "off"} {
		t.Run("xdp "+xdp, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.connectSecond()
			p := w.pods[0]
			for i, family := range []string{"-4", "-6"} {
				w.entryIP(family, "route", "add", "default", "via", secondClient[i].Addr().String(), "dev", secondDev, "table", "22")
				w.entryIP(family, "rule", "add", "from", []netip.Addr{p.Addr4, p.Addr6}[i].String(), "lookup", "22", "prio", "100")
			}
			rules := fmt.Sprintf(`table inet check { chain in { type filter hook input priority 0;
				iifname %q ip saddr != %s meta l4proto { tcp, udp } drop
				iifname %q ip6 saddr != %s meta l4proto { tcp, udp } drop
			}
			}`, secondDev, p.Addr4, secondDev, p.Addr6)
			if err := suite.Nft(w.Context(), w.client(), rules); err != nil {
				w.Fatal(err)
			}
			w.startFinder(xdp)
			w.publish(p)
			w.wantAlone(p.Name())
		})
	}
}

// The node's address is on a bridge over its NIC, netfilter looks at what goes by the
// bridge, and the network plugin masquerades what pods send to others: translation comes
// before all of that.
func TestABridgeMayBeTheUplink(t *testing.T) {
	t.Parallel()
	for _, xdp := range []string{"auto", "off"} {
		t.Run("xdp "+xdp, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.bridgeUplink("br-ex")
			rules := fmt.Sprintf(`table inet cni { chain post { type nat hook postrouting priority 100;
				ip saddr %[1]s ip daddr != 10.244.0.0/16 masquerade fully-random
				ip6 saddr %[2]s ip6 daddr != fd00:244::/32 masquerade fully-random
			}
			}`, w.entry.PodCIDR4, w.entry.PodCIDR6)
			if err := suite.Nft(w.Context(), w.entry.NS, rules); err != nil {
				w.Fatal(err)
			}
			w.startFor(xdp, "br-ex")
			for _, p := range []*lab.Pod{w.pods[0], w.pods[2]} {
				w.publish(p)
				w.wantAlone(p.Name())
			}
		})
	}
}

// bridgeUplink puts a bridge over the NIC of the entry node, with its addresses and routes.
func (w *world) bridgeUplink(name string) {
	w.Helper()
	router4, router6 := lab.SegmentRouterAddrs()
	script := fmt.Sprintf(`set -e
ip link add %[1]s type bridge mcast_snooping 0
ip link set %[1]s address $(cat /sys/class/net/%[2]s/address)
ip addr flush dev %[2]s scope global
ip link set %[2]s master %[1]s
ip link set %[1]s up
ip addr add %[3]s/24 dev %[1]s
ip addr add %[4]s/64 dev %[1]s nodad
ip route replace default via %[5]s
ip -6 route replace default via %[6]s
ip route replace 10.244.2.0/24 via %[7]s
ip -6 route replace fd00:244:2::/64 via %[8]s
if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; then
	echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
	echo 1 >/proc/sys/net/bridge/bridge-nf-call-ip6tables
fi
`, name, lab.Uplink, w.entry.Addr4, w.entry.Addr6, router4, router6, w.lab.Nodes[1].Addr4, w.lab.Nodes[1].Addr6)
	for _, p := range w.pods[:2] { // their routes have gone with the address
		script += fmt.Sprintf("ip route replace %s dev %s src %s\n", p.Addr4, p.HostDev, w.entry.Addr4)
	}
	said := &suite.Output{}
	cmd := exec.Command("bash", "-c", script)
	cmd.Stdout, cmd.Stderr = said, said
	p, err := w.entry.Start(cmd)
	if err != nil {
		w.Fatal(err)
	}
	if <-p.Done(); p.Err() != nil {
		w.Fatalf("bridge the uplink: %v\n%s", p.Err(), said)
	}
}
