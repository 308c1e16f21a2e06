package topology

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// ebb comes to a node on which kube-proxy's rules have translated connections, the
// rules go, and later they come back and ebb goes.

// ruled are the rules of kube-proxy --proxy-mode=nftables for the lab's Service, as far
// as packets of it meet them.
const ruled = `table ip kube-proxy {
	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { %[1]s . tcp . %[2]d : goto service-http, %[1]s . udp . %[3]d : goto service-echo }
	}
	chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
	chain nat-output { type nat hook output priority -100; jump services; }
	chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
	chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
	chain masquerading {
		meta mark & 0x4000 == 0 return
		meta mark set meta mark ^ 0x4000
		masquerade fully-random
	}
	chain mark-for-masquerade { meta mark set meta mark | 0x4000; }
	chain service-http { jump mark-for-masquerade; numgen random mod 2 vmap { 0 : goto endpoint-here-http, 1 : goto tendpoint-here-http }; }
	chain service-echo { jump mark-for-masquerade; numgen random mod 2 vmap { 0 : goto endpoint-here-echo, 1 : goto tendpoint-here-echo }; }
	chain endpoint-here-http { meta l4proto tcp dnat to %[4]s:%[6]d; }
	chain tendpoint-here-http { meta l4proto tcp dnat to %[5]s:%[6]d; }
	chain endpoint-here-echo { meta l4proto udp dnat to %[4]s:%[7]d; }
	chain tendpoint-here-echo { meta l4proto udp dnat to %[5]s:%[7]d; }
}
`

// nft has the entry node execute commands.
func (w *world) nft(commands string) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	if err := suite.Nft(ctx, w.entry.NS, commands); err != nil {
		w.Fatal(err)
	}
}

func TestConnectionsLiveOnWhileEbbAndKubeProxyTakeTurns(t *testing.T) {
	for _, mode := range []string{"native", "off"} {
		t.Run("xdp "+mode, func(t *testing.T) {
			w := newWorld(t)
			vip, _ := lab.DefaultVIPs()
			rules := w.kubeProxysRules()
			w.masquerade() // the CNI's: without any rule of NAT netfilter forgets what it translates
			w.nft(rules)
			theirs := w.talks("kube-proxy's", vip)
			theirs.goOn("before ebb comes")
			p := w.startAgentWith("--health-responder", "off", "--east-west", "off", "--xdp", mode)
			w.await("the agent to be ready", p, w.healthy)
			theirs.goOn("once ebb is there")
			ours := w.talks("ebb's", vip)
			w.migrateFinish(0, "removed nftables table ip kube-proxy")
			theirs.goOn("once the rules are gone")
			ours.goOn("once the rules are gone")
			w.nft(rules)
			theirs.goOn("once the rules are back")
			ours.goOn("once the rules are back")
			w.handBack()
			ours.goOn("once ebb has handed back")
			theirs.goOn("once ebb has handed back")
			w.talks("kube-proxy's later", vip)
		})
	}
}

// Where kube-proxy's rules of NAT are the only ones, netfilter forgets with them what
// it translates, unless a chain stays.
func TestConnectionsOutliveTheLastRulesOfNATByAChainThatStays(t *testing.T) {
	w := newWorld(t)
	vip, _ := lab.DefaultVIPs()
	w.nft(w.kubeProxysRules())
	theirs := w.talks("kube-proxy's", vip)
	p := w.startAgentWith("--health-responder", "off", "--east-west", "off", "--xdp", "off")
	w.await("the agent to be ready", p, w.healthy)
	w.migrateFinish(3, "has netfilter translate connections of the family ip:")
	theirs.goOn("once it was refused to remove the rules")
	w.nft("add table ip stay; add chain ip stay nat { type nat hook postrouting priority 100; }; add rule ip stay nat ct state new accept")
	w.migrateFinish(0, "removed nftables table ip kube-proxy")
	theirs.goOn("once the rules are gone")
}

// kubeProxysRules returns rules for the lab's Service, with a pod on each node.
func (w *world) kubeProxysRules() string {
	w.Helper()
	here, there := w.addEcho(w.entry), w.addEcho(w.lab.Nodes[1])
	vip, _ := lab.DefaultVIPs()
	w.publish(here, there)
	return fmt.Sprintf(ruled, vip, httpPort, echoPort, here.Addr4, there.Addr4, pod.HTTPPort, pod.UDPPort)
}

// migrateFinish executes ebb migrate finish, which ends with a code and says something.
func (w *world) migrateFinish(code int, says string) {
	w.Helper()
	p := w.run("migrate", "finish", "--bpffs", bpffs)
	if got := p.wait(); got != code || !strings.Contains(p.out.String(), says) {
		w.Fatalf("ebb migrate finish: exit code %d, want %d and %q\n%s", got, code, says, p.out)
	}
}

// handBack has ebb begin nothing more: it is told of no Service.
func (w *world) handBack() {
	w.Helper()
	cluster := clusterManifest(w.entry)
	w.write("cluster.yaml", cluster[:strings.Index(cluster, "---")])
	if err := os.Remove(filepath.Join(w.manifests, "endpoints.yaml")); err != nil {
		w.Fatal(err)
	}
	w.poll("frontends to go", func() bool { return w.metric("ebb_frontends") == 0 })
}

type talks []*talk

// talks begins 200 connections, and twenty of datagrams.
func (w *world) talks(name string, vip netip.Addr) (all talks) {
	w.Helper()
	for i := range 200 {
		all = append(all, w.talkFrom(fmt.Sprintf("%s connection %d", name, i), w.client(), "tcp", netip.AddrPortFrom(vip, httpPort), 0))
	}
	for i := range 20 {
		all = append(all, w.talkFrom(fmt.Sprintf("%s datagrams %d", name, i), w.client(), "udp", netip.AddrPortFrom(vip, echoPort), 0))
	}
	all.goOn("at first")
	return all
}

func (all talks) goOn(when string) {
	for _, t := range all {
		t.w.Helper()
		t.ask(when, 0)
	}
}
