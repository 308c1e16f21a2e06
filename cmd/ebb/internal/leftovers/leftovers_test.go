package leftovers

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata")

// machine has programs that say what is told, and files.
type machine struct {
	says  map[string]string // by command line
	files map[string]string
	ran   []string // what changes something, with its input
	fails error
}

func (m *machine) Has(program string) bool {
	for line := range m.says {
		if name, _, _ := strings.Cut(line, " "); name == program {
			return true
		}
	}
	return false
}

func (m *machine) Run(_ context.Context, stdin, program string, args ...string) (string, error) {
	line := commandLine(program, args)
	if out, ok := m.says[line]; ok {
		return out, nil
	}
	if !m.Has(program) {
		return "", fmt.Errorf("%s: executed, but not there", program)
	}
	m.ran = append(m.ran, line+"\n"+stdin)
	return "", m.fails
}

func (m *machine) Read(path string) (string, error) {
	if text, ok := m.files[path]; ok {
		return text, nil
	}
	return "", fmt.Errorf("%s: %w", path, fs.ErrNotExist)
}

const (
	devices  = "Inter-|   Receive\n face |bytes\n    lo:       0\n  eth0: 9\n"
	noTables = `{"nftables": [{"metainfo": {"version": "1.0.6"}}]}`
)

// node is a machine with all programs and nothing of kube-proxy.
func node() *machine {
	return &machine{
		says: map[string]string{
			"nft -j list tables": noTables, "nft -j list chains": noTables,
			"iptables-nft-save": "", "iptables-nft-restore": "", "ip6tables-nft-save": "", "ip6tables-nft-restore": "",
			"iptables-legacy-save": "", "iptables-legacy-restore": "", "ip6tables-legacy-save": "", "ip6tables-legacy-restore": "",
			"ipset list -n": "", "ipvsadm": "", "ip": "",
		},
		files: map[string]string{"/proc/net/dev": devices},
	}
}

func look(t *testing.T, m Machine, spared ...netip.Prefix) Found {
	t.Helper()
	found, err := Look(t.Context(), m, spared)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// plan returns what would be executed, and the notes.
func plan(t *testing.T, f Found) string {
	t.Helper()
	var b strings.Builder
	for _, r := range f.Removals() {
		if err := r.Print(&b); err != nil {
			t.Fatal(err)
		}
	}
	for _, note := range f.Notes {
		fmt.Fprintln(&b, "# note:", note)
	}
	for _, unknown := range f.Unknown {
		fmt.Fprintln(&b, "# unknown:", unknown)
	}
	return b.String()
}

// golden compares a plan with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(filepath.Join("testdata", name), []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(read(t, name), got); diff != "" {
		t.Errorf("%s (write it by -update): -want +got\n%s", name, diff)
	}
}

func TestANodeThatHadNoKubeProxyIsEmpty(t *testing.T) {
	f := look(t, node())
	if !f.Empty() || len(f.Modes()) > 0 || len(f.Unknown) > 0 || len(f.Removals()) > 0 {
		t.Errorf("%+v", f)
	}
}

func TestEachModeIsFoundAndRemoved(t *testing.T) {
	for _, tc := range []struct {
		name  string
		modes []string
		set   func(m *machine)
	}{
		{"iptables", []string{ModeIPTables}, func(m *machine) {
			m.files["/proc/net/ip_tables_names"] = "nat\nfilter\n"
			m.says["iptables-legacy-save"] = read(t, "iptables.save")
		}},
		{"nftables", []string{ModeNFTables}, func(m *machine) {
			m.says["nft -j list tables"] = read(t, "nft-tables.json")
			m.says["nft -j list chains"] = read(t, "nft-chains.json")
			m.says["nft list table inet kube-proxy"] = "table inet kube-proxy {\n}\n"
			m.says["nft list table ip mine"] = "table ip mine {\n}\n"
		}},
		{"ipvs", []string{ModeIPVS}, func(m *machine) {
			m.files["/proc/net/dev"] += "kube-ipvs0: 0\n"
			m.files["/proc/net/ip_vs"] = read(t, "ip_vs")
			m.files["/proc/net/ip_tables_names"] = "nat\nfilter\n"
			m.says["iptables-legacy-save"] = read(t, "ipvs.save")
			m.says["ipset list -n"] = "KUBE-CLUSTER-IP\ncali40masq-ipam-pools\nKUBE-6-LOAD-BALANCER-SOURCE-IP\nKUBE-DST-OF-MINE\n"
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := node()
			tc.set(m)
			f := look(t, m, netip.MustParsePrefix("198.51.100.0/24"))
			if diff := cmp.Diff(tc.modes, f.Modes()); diff != "" {
				t.Error(diff)
			}
			golden(t, tc.name+".plan", plan(t, f))
			if got, want := f.IPVS.Active(), map[string]int{"ipvs": 5}[tc.name]; got != want {
				t.Errorf("%d connections by IPVS, want %d", got, want)
			}
			var said strings.Builder
			if err := Remove(t.Context(), m, f.Removals(), &said); err != nil {
				t.Error(err)
			}
			golden(t, tc.name+".removed", said.String())
			if len(m.ran) != len(f.Removals()) {
				t.Errorf("executed: %q", m.ran)
			}
		})
	}
}

func TestVirtualServersOfOthersStayWithoutKubeProxysDevice(t *testing.T) {
	m := node()
	m.files["/proc/net/ip_vs"] = read(t, "ip_vs")
	if f := look(t, m); !f.Empty() {
		t.Errorf("%+v", f)
	}
}

// Debian before 11 and some small images have the plain names only.
func TestTheBackendOfThePlainNamesIsAskedFor(t *testing.T) {
	m := node()
	for _, name := range []string{"iptables-legacy-save", "iptables-legacy-restore", "iptables-nft-save", "iptables-nft-restore"} {
		delete(m.says, name)
	}
	m.says["iptables-save --version"] = "iptables-save v1.8.9 (legacy)\n"
	m.says["iptables-restore"] = ""
	m.says["iptables-save"] = read(t, "iptables.save")
	m.files["/proc/net/ip_tables_names"] = "nat\n"
	f := look(t, m)
	if r := f.Removals(); len(r) != 1 || r[0].Program != "iptables-restore" {
		t.Errorf("%+v", f)
	}
	m.says["iptables-save --version"] = "iptables-save v1.8.9 (nf_tables)\n"
	if f := look(t, m); len(f.Unknown) != 1 || !strings.Contains(f.Unknown[0], "IPv4 rules of iptables (legacy) are not known") {
		t.Errorf("%+v", f)
	}
}

func TestWhatCannotBeLookedAtIsUnknown(t *testing.T) {
	chain := `{"nftables": [{"chain": {"family": "ip", "table": "nat", "name": "KUBE-SERVICES", "handle": 1}}]}`
	for _, tc := range []struct {
		name, want string
		set        func(m *machine)
	}{
		{"no nft", "tables of nftables are not known: nft is not in PATH; install the package nftables", func(m *machine) {
			delete(m.says, "nft -j list tables")
			delete(m.says, "nft -j list chains")
		}},
		{"chains that iptables put into nftables, no iptables", "IPv4 rules of iptables (nf_tables) are not known: iptables-save and -restore for this backend are not in PATH; install the package iptables", func(m *machine) {
			m.says["nft -j list chains"] = chain
			delete(m.says, "iptables-nft-save")
		}},
		{"a table that iptables cannot read", "IPv4 table nat (nf_tables) is not known: iptables-nft-save cannot read it; a program other than iptables has put rules there", func(m *machine) {
			m.says["nft -j list chains"] = chain
			m.says["iptables-nft-save"] = "# Table `nat' is incompatible, use 'nft' tool.\n# Table `filter' is incompatible, use 'nft' tool.\n"
		}},
		{"no ipset", "sets of the IPVS mode are not known: ipset is not in PATH; install the package ipset", func(m *machine) {
			m.files["/proc/net/dev"] += "kube-ipvs0: 0\n"
			delete(m.says, "ipset list -n")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := node()
			tc.set(m)
			if diff := cmp.Diff([]string{tc.want}, look(t, m).Unknown); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWithoutIPTablesNothingIsUnknownIfNothingIsThere(t *testing.T) {
	m := node()
	for line := range m.says {
		if strings.Contains(line, "tables-") {
			delete(m.says, line)
		}
	}
	m.says["nft -j list chains"] = `{"nftables": [{"chain": {"family": "ip", "table": "nat", "name": "KUBE-KUBELET-CANARY", "handle": 1}}]}`
	if f := look(t, m); len(f.Unknown) > 0 {
		t.Errorf("%+v", f)
	}
}

// Kubernetes 1.37 translates in the chains of Services.
func TestChainsOfServicesLeadToEndpoints(t *testing.T) {
	m := node()
	m.says["nft -j list tables"] = `{"nftables": [{"table": {"family": "ip", "name": "kube-proxy"}}, {"table": {"family": "ip6", "name": "kube-proxy"}}]}`
	m.says["nft -j list chains"] = `{"nftables": [
		{"chain": {"family": "ip", "table": "kube-proxy", "name": "service-endpoints-check"}},
		{"chain": {"family": "ip", "table": "kube-proxy", "name": "service-SUSTUHLJ-default/web/tcp/http"}},
		{"chain": {"family": "ip6", "table": "kube-proxy", "name": "service-endpoints-check"}}]}`
	if diff := cmp.Diff([]string{"ip"}, look(t, m).NoOtherNAT); diff != "" {
		t.Error(diff)
	}
}

func TestTheLastNATIsThatOfAFamily(t *testing.T) {
	m := node()
	m.says["nft -j list tables"] = read(t, "nft-tables.json")
	m.says["nft -j list chains"] = read(t, "nft-chains.json") // IPv4 has another chain for NAT
	m.says["nft list table inet kube-proxy"] = "table inet kube-proxy {\n}\n"
	want := func(why string, families ...string) {
		t.Helper()
		if diff := cmp.Diff(families, look(t, m).NoOtherNAT); diff != "" {
			t.Errorf("%s: %s", why, diff)
		}
	}
	m.says["nft list table ip mine"] = "table ip mine {\n\tchain post {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t\tcomment \"no masquerade here\" accept\n\t}\n}\n"
	want("a chain that tracks nothing", "ip", "ip6")
	m.says["nft list table ip mine"] = "table ip mine {\n\tchain post {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t\tip saddr 10.0.0.0/8 masquerade fully-random\n\t}\n}\n"
	want("one that masquerades", "ip6")
	m.files["/proc/net/ip6_tables_names"] = "nat\n"
	m.says["ip6tables-legacy-save"] = "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n"
	want("legacy chains that track nothing", "ip6")
	m.says["ip6tables-legacy-save"] += "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m conntrack --ctstate NEW -j KUBE-SERVICES\nCOMMIT\n"
	want("legacy rules of kube-proxy's own", "ip6")
	m.says["ip6tables-legacy-save"] += "*raw\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n"
	want("others track")
	delete(m.files, "/proc/net/ip6_tables_names")
	m.says["nft -j list chains"] = strings.Replace(m.says["nft -j list chains"], "endpoint-ABCDEFG2", "external-ABCDEFG2", 1)
	want("no endpoint has IPv6")
}

func TestRulesThatIPTablesPutThereForKubeProxyTrackNothingForOthers(t *testing.T) {
	const text = "table ip filter {\n\tchain KUBE-FORWARD {\n\t\tct state related,established accept\n\t}\n" +
		"\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\tct state new counter packets 0 bytes 0 jump KUBE-SERVICES\n\t}\n"
	if tracks("filter", text+"}\n") {
		t.Error("kube-proxy's own rules count")
	}
	if !tracks("filter", text+"\tchain KUBE-FIREWALL {\n\t\tct status dnat drop\n\t}\n}\n") {
		t.Error("the kubelet's rules do not count")
	}
}

func TestAFailureKeepsNothingElseFromBeingRemoved(t *testing.T) {
	m := node()
	m.fails = errors.New("no")
	var said strings.Builder
	err := Remove(t.Context(), m, []Removal{
		{Removes: []string{"a", "b"}, Program: "missing"},
		{Removes: []string{"c"}, Program: "ip", Args: []string{"link"}},
	}, &said)
	const want = "a and 1 more: missing is not in PATH; install it, or run kube-proxy --cleanup\nno"
	if err == nil || err.Error() != want || said.Len() > 0 || len(m.ran) != 1 {
		t.Errorf("%v, %q, %q", err, said.String(), m.ran)
	}
}

func TestOutputThatIsNotUnderstoodIsAnError(t *testing.T) {
	m := node()
	m.says["nft -j list tables"] = "table ip nat"
	if _, err := Look(t.Context(), m, nil); err == nil || !strings.HasPrefix(err.Error(), "look for rules of nftables: nft -j list tables: ") {
		t.Error(err)
	}
	m = node()
	m.files["/proc/net/dev"] += "kube-ipvs0: 0\n"
	m.files["/proc/net/ip_vs"] = "TCP  0A60:0050 rr\n"
	if _, err := Look(t.Context(), m, nil); err == nil || err.Error() != `look for IPVS: /proc/net/ip_vs: "TCP  0A60:0050 rr": no address` {
		t.Error(err)
	}
}

func TestWordsInQuotesAreOne(t *testing.T) {
	for spec, want := range map[string]string{
		`-d 10.0.0.1/32 -m comment --comment "a \"b\" -j KUBE-X" -j KUBE-SERVICES`: "KUBE-SERVICES",
		`-m comment --comment "says -j KUBE-SERVICES"`:                             "",
		`-g KUBE-MARK-MASQ`:                 "KUBE-MARK-MASQ",
		`-m comment --comment "" -j RETURN`: "RETURN",
		`-j`:                                "",
		``:                                  "",
	} {
		if got := target(spec); got != want {
			t.Errorf("%s: %q, want %q", spec, got, want)
		}
	}
}

func TestChainsOfOthersAreNotKubeProxys(t *testing.T) {
	for _, tc := range []struct {
		table, chain string
		want         bool
	}{
		{"nat", "KUBE-SVC-ABCDEFGHIJKLMNO2", true},
		{"nat", "KUBE-SVC-MINE", false},
		{"nat", "KUBE-SVC-abcdefghijklmno2", false},
		{"filter", "KUBE-SVC-ABCDEFGHIJKLMNO2", false},
		{"filter", "KUBE-FIREWALL", false},
		{"nat", "KUBE-FIREWALL", false},
		{"nat", "KUBE-KUBELET-CANARY", false},
		{"mangle", "KUBE-IPTABLES-HINT", false},
		{"nat", "KUBE-MARK-DROP", false},
		{"mangle", "KUBE-PROXY-CANARY", true},
		{"raw", "KUBE-PROXY-CANARY", false},
		{"filter", "KUBE-ROUTER-FORWARD", false},
		{"filter", "KUBE-PROXY-FIREWALL", true},
	} {
		if got := owned(tc.table, tc.chain); got != tc.want {
			t.Errorf("%s %s: %v", tc.table, tc.chain, got)
		}
	}
}
