package migrate

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// load loads rules of one file by iptables, beside what there is.
func (w *world) load(f family, backend, name string) {
	w.Helper()
	w.must(w.rules(f, name), f.iptables+backend+"-restore", "--noflush")
}

// wantOnly removes kube-proxy's rules and compares what is left.
func (w *world) wantOnly(others string) {
	w.Helper()
	before := w.saved()
	w.migrate(3, "finish") // no ebb serves
	plan := w.migrate(0, "finish", "--dry-run").out
	if now := w.saved(); now != before {
		w.Fatalf("refusing and --dry-run changed rules:\n%s", cmp.Diff(before, now))
	}
	said := w.migrate(0, "finish", "--force")
	if now := w.saved(); now != others {
		w.Errorf("after ebb migrate finish:\n%s", cmp.Diff(others, now))
	}
	w.wantPlanned(plan, said.out)
	if again := w.migrate(0, "finish"); again.out != "nothing of kube-proxy's is left\n" {
		w.Errorf("a second time: %s", again.out)
	}
	if r := w.migrate(0, "check"); !strings.Contains(r.out, "no rules") {
		w.Errorf("ebb migrate check: %s", r.out)
	}
}

// wantPlanned compares the names of chains and tables in a plan with those that went.
func (w *world) wantPlanned(plan, said string) {
	w.Helper()
	var planned, gone []string
	for _, m := range regexp.MustCompile(`(?m)^(?:-X|delete table) (.*)$`).FindAllStringSubmatch(plan, -1) {
		planned = append(planned, m[1])
	}
	for _, m := range regexp.MustCompile(`(?m)^removed .*(?:chain|nftables table) ([^(\n]*?)(?: \(\d+ chains\))?$`).FindAllStringSubmatch(said, -1) {
		gone = append(gone, m[1])
	}
	if len(planned) == 0 {
		w.Errorf("nothing planned:\n%s", plan)
	}
	if diff := cmp.Diff(planned, gone); diff != "" {
		w.Errorf("-planned +removed\n%s", diff)
	}
}

// modes returns what ebb migrate check says.
func (w *world) modes() []string {
	w.Helper()
	var report struct {
		Modes []string
		Clean bool
	}
	r := w.migrate(3, "check", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &report); err != nil || report.Clean {
		w.Fatalf("%v\n%s", err, r.out)
	}
	return report.Modes
}

func TestChainsOfIPTablesGoAndOthersStay(t *testing.T) {
	for _, backend := range []string{"-nft", "-legacy"} {
		t.Run("iptables"+backend, func(t *testing.T) {
			w := newWorld(t)
			for _, f := range families() {
				w.load(f, backend, "others.iptables")
			}
			others := w.saved()
			for _, f := range families() {
				w.load(f, backend, "kube-proxy.iptables")
			}
			if diff := cmp.Diff([]string{"iptables"}, w.modes()); diff != "" {
				t.Error(diff)
			}
			w.wantOnly(others)
		})
	}
}

func TestTheTableOfNFTablesGoesAndOthersStay(t *testing.T) {
	w := newWorld(t)
	for _, f := range families() {
		w.must(w.rules(f, "others.nft"), "nft", "-f", "-")
	}
	others := w.saved()
	for _, f := range families() {
		w.must(w.rules(f, "kube-proxy.nft"), "nft", "-f", "-")
	}
	if diff := cmp.Diff([]string{"nftables"}, w.modes()); diff != "" {
		t.Error(diff)
	}
	w.wantOnly(others)
}

func TestRulesOfSeveralModesAndBackendsGoAtOnce(t *testing.T) {
	w := newWorld(t)
	for _, f := range families() {
		for _, backend := range []string{"-nft", "-legacy"} {
			w.load(f, backend, "others.iptables")
		}
	}
	others := w.saved()
	for _, f := range families() {
		for _, backend := range []string{"-nft", "-legacy"} {
			w.load(f, backend, "kube-proxy.iptables")
		}
		w.must(w.rules(f, "kube-proxy.nft"), "nft", "-f", "-")
	}
	if diff := cmp.Diff([]string{"nftables", "iptables"}, w.modes()); diff != "" {
		t.Error(diff)
	}
	w.wantOnly(others)
}

// The portmap plugin may be told to use kube-proxy's mark.
func TestAChainThatAnotherOneUsesStays(t *testing.T) {
	w := newWorld(t)
	f := families()[0]
	w.load(f, "-nft", "kube-proxy.iptables")
	w.must("*nat\n:CNI-HOSTPORT-SETMARK - [0:0]\n-A CNI-HOSTPORT-SETMARK -j KUBE-MARK-MASQ\nCOMMIT\n", "iptables-nft-restore", "--noflush")
	said := w.migrate(0, "finish", "--force")
	if !strings.Contains(said.err, "KUBE-MARK-MASQ stays, because chain CNI-HOSTPORT-SETMARK") {
		t.Errorf("nothing is said of it:\n%s", said.err)
	}
	var left []string
	for line := range strings.Lines(w.must("", "iptables-nft-save", "-t", "nat")) {
		if strings.HasPrefix(line, ":") && !strings.Contains(line, " ACCEPT ") {
			left = append(left, strings.Fields(line)[0])
		}
	}
	if diff := cmp.Diff([]string{":CNI-HOSTPORT-SETMARK", ":KUBE-MARK-MASQ", ":KUBE-POSTROUTING"}, left); diff != "" {
		t.Error(diff)
	}
	if rules := w.must("", "iptables-nft-save"); !strings.Contains(rules, "-j KUBE-POSTROUTING") || !strings.Contains(rules, "MASQUERADE") {
		t.Errorf("nobody masquerades what has the mark:\n%s", rules)
	}
	w.migrate(0, "finish")
}

func TestTheLastRulesOfNATAreNotRemovedUnasked(t *testing.T) {
	w := newWorld(t)
	w.must(w.rules(families()[0], "kube-proxy.nft"), "nft", "-f", "-")
	const why = "has netfilter translate connections of the family ip:"
	if said := w.migrate(3, "finish"); !strings.Contains(said.err, why) {
		t.Error(said.err)
	}
	w.must("add table ip stay; add chain ip stay nat { type nat hook postrouting priority 100; }", "nft", "-f", "-")
	if said := w.migrate(3, "finish"); !strings.Contains(said.err, why) {
		t.Errorf("beside a chain that tracks nothing: %s", said.err)
	}
	w.must("add rule ip stay nat ct state new accept", "nft", "-f", "-")
	if said := w.migrate(3, "finish"); strings.Contains(said.err, why) {
		t.Errorf("beside one that tracks: %s", said.err)
	}
}

// The kubelet's rules track connections, and chains that iptables has made for NAT stay.
func TestRulesOfTheKubeletLetConnectionsGoOn(t *testing.T) {
	for _, backend := range []string{"-nft", "-legacy"} {
		w := newWorld(t)
		f := families()[0]
		w.load(f, backend, "kube-proxy.iptables")
		const why = "has netfilter translate connections"
		if said := w.migrate(3, "finish"); !strings.Contains(said.err, why) {
			t.Errorf("iptables%s, without others: %s", backend, said.err)
		}
		w.load(f, backend, "others.iptables")
		if said := w.migrate(3, "finish"); strings.Contains(said.err, why) {
			t.Errorf("iptables%s, with others: %s", backend, said.err)
		}
	}
}
