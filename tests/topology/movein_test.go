package topology

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
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
			rules := w.kubeProxysRules(ruled)
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
	w.nft(w.kubeProxysRules(ruled))
	theirs := w.talks("kube-proxy's", vip)
	p := w.startAgentWith("--health-responder", "off", "--east-west", "off", "--xdp", "off")
	w.await("the agent to be ready", p, w.healthy)
	w.migrateFinish(3, "has netfilter translate connections of the family ip:")
	theirs.goOn("once it was refused to remove the rules")
	w.nft("add table ip stay; add chain ip stay nat { type nat hook postrouting priority 100; }; add rule ip stay nat ct state new accept")
	w.migrateFinish(0, "removed nftables table ip kube-proxy")
	theirs.goOn("once the rules are gone")
}

// The way back of docs/migration.md: kube-proxy's rules come, an agent is told of no
// Service, and everything of ebb goes.
func TestConnectionsOutliveEbbOnceItIsToldOfNoService(t *testing.T) {
	w := newWorld(t)
	vip, _ := lab.DefaultVIPs()
	// By ports that no flow of ebb has: else a connection of kube-proxy's may be a guest of
	// ebb, and end with it.
	rules := strings.Replace(w.kubeProxysRules(ruled), "masquerade fully-random", "meta l4proto { tcp, udp } masquerade to :30000-60000 fully-random", 1)
	w.masquerade()
	p := w.startReadyAgent()
	ours := w.talks("ebb's", vip)
	w.nft(rules)
	w.stop(p)
	ours.goOn("without an agent")
	w.manifests = t.TempDir()
	w.writeNodeOnly()
	p = w.startAgentWith("--health-responder", "off", "--health-addr", "", "--metrics-addr", "")
	w.poll("frontends to go", func() bool {
		dump := w.run("dump", "--bpffs", bpffs)
		return dump.wait() == 0 && !strings.Contains(dump.out.String(), "frontend ")
	})
	ours.goOn("by an agent that is told of no Service")
	theirs := w.talks("kube-proxy's", vip)
	ours.goOn("beside kube-proxy's")
	w.stop(p)
	if p := w.run("cleanup", "--bpffs", bpffs, "--state-dir", w.state); p.wait() != 0 {
		t.Fatalf("ebb cleanup: %s", p.out)
	}
	theirs.goOn("once nothing of ebb is left")
}

// stop ends a process as a node does.
func (w *world) stop(p *process) {
	w.Helper()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		w.Fatal(err)
	}
	if code := p.wait(); code != 0 {
		w.Fatalf("exit code %d\n%s", code, p.out)
	}
}

// chained are the rules of kube-proxy --proxy-mode=iptables for the lab's Service, and
// one of the kubelet's, because of which connections are tracked.
const chained = `*filter
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
-A OUTPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-BBBBBBBBBBBBBBBB - [0:0]
:KUBE-SEP-CCCCCCCCCCCCCCCC - [0:0]
:KUBE-SEP-DDDDDDDDDDDDDDDD - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-EEEEEEEEEEEEEEEE - [0:0]
:KUBE-SVC-FFFFFFFFFFFFFFFF - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
-A KUBE-SERVICES -d %[1]s -p tcp -m tcp --dport %[2]d -j KUBE-SVC-EEEEEEEEEEEEEEEE
-A KUBE-SERVICES -d %[1]s -p udp -m udp --dport %[3]d -j KUBE-SVC-FFFFFFFFFFFFFFFF
-A KUBE-SVC-EEEEEEEEEEEEEEEE -j KUBE-MARK-MASQ
-A KUBE-SVC-EEEEEEEEEEEEEEEE -m statistic --mode random --probability 0.5 -j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SVC-EEEEEEEEEEEEEEEE -j KUBE-SEP-BBBBBBBBBBBBBBBB
-A KUBE-SVC-FFFFFFFFFFFFFFFF -j KUBE-MARK-MASQ
-A KUBE-SVC-FFFFFFFFFFFFFFFF -m statistic --mode random --probability 0.5 -j KUBE-SEP-CCCCCCCCCCCCCCCC
-A KUBE-SVC-FFFFFFFFFFFFFFFF -j KUBE-SEP-DDDDDDDDDDDDDDDD
-A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -j DNAT --to-destination %[4]s:%[6]d
-A KUBE-SEP-BBBBBBBBBBBBBBBB -p tcp -j DNAT --to-destination %[5]s:%[6]d
-A KUBE-SEP-CCCCCCCCCCCCCCCC -p udp -j DNAT --to-destination %[4]s:%[7]d
-A KUBE-SEP-DDDDDDDDDDDDDDDD -p udp -j DNAT --to-destination %[5]s:%[7]d
COMMIT
`

func TestConnectionsOutliveTheChainsOfIPTables(t *testing.T) {
	for _, restore := range []string{"iptables-nft-restore", "iptables-legacy-restore"} {
		t.Run(restore, func(t *testing.T) {
			if _, err := exec.LookPath(restore); err != nil {
				t.Fatal("iptables is not installed: apt-get install --no-install-recommends iptables")
			}
			w := newWorld(t)
			vip, _ := lab.DefaultVIPs()
			cmd := exec.Command(restore)
			cmd.Stdin = strings.NewReader(w.kubeProxysRules(chained))
			if p := w.start(cmd); p.wait() != 0 {
				t.Fatalf("%s: %s", restore, p.out)
			}
			theirs := w.talks("kube-proxy's", vip)
			p := w.startAgentWith("--health-responder", "off", "--east-west", "off", "--xdp", "off")
			w.await("the agent to be ready", p, w.healthy)
			ours := w.talks("ebb's", vip)
			w.migrateFinish(0, "chain KUBE-SERVICES")
			theirs.goOn("once the rules are gone")
			ours.goOn("once the rules are gone")
		})
	}
}

// kubeProxysRules returns rules of a form for the lab's Service, with a pod on each node.
func (w *world) kubeProxysRules(form string) string {
	w.Helper()
	here, there := w.addEcho(w.entry), w.addEcho(w.lab.Nodes[1])
	vip, _ := lab.DefaultVIPs()
	w.publish(here, there)
	return fmt.Sprintf(form, vip, httpPort, echoPort, here.Addr4, there.Addr4, pod.HTTPPort, pod.UDPPort)
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
	w.writeNodeOnly()
	if err := os.Remove(filepath.Join(w.manifests, "endpoints.yaml")); err != nil {
		w.Fatal(err)
	}
	w.poll("frontends to go", func() bool { return w.metric("ebb_frontends") == 0 })
}

// writeNodeOnly makes the Node all there is in the manifest of the cluster.
func (w *world) writeNodeOnly() {
	w.Helper()
	cluster := clusterManifest(w.entry)
	w.write("cluster.yaml", cluster[:strings.Index(cluster, "---")])
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
