// Package migrate tests that ebb migrate finds on a node what kube-proxy leaves, and
// removes that and nothing else: real rules in private network namespaces, by the
// programs of this machine.
package migrate

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// ebb is the binary under test, built from the source beside this package.
var ebb string

func TestMain(m *testing.M) { suite.Run(m, &ebb) }

// patience bounds each command.
const patience = 30 * time.Second

// world is a node without rules.
type world struct {
	*testing.T
	node *lab.Node
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: creates network namespaces and rules in them")
	}
	for program, pkg := range map[string]string{"nft": "nftables", "iptables-nft-save": "iptables", "iptables-legacy-save": "iptables"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is not installed: apt-get install --no-install-recommends %s", program, pkg)
		}
	}
	l, err := lab.New(t.Context(), lab.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{T: t, node: l.Nodes[0]}
}

// family are the words of one family for the rules in testdata.
type family struct{ name, iptables, words string }

func families() []family {
	return []family{
		{"ip", "iptables", "FAMILY ip ADDR ipv4_addr VIP1 10.96.0.7/32 VIP2 10.96.0.8/32 POD1 10.244.1.2/32 POD2 10.244.2.2/32 PODS 10.244.0.0/16 TO1 10.244.1.2:8080 TO2 10.244.2.2:8080"},
		{"ip6", "ip6tables", "FAMILY ip6 ADDR ipv6_addr VIP1 fd00:96::7/128 VIP2 fd00:96::8/128 POD1 fd00:244:1::2/128 POD2 fd00:244:2::2/128 PODS fd00:244::/48 TO1 [fd00:244:1::2]:8080 TO2 [fd00:244:2::2]:8080"},
	}
}

// rules returns a file of testdata in the words of a family.
func (w *world) rules(f family, name string) string {
	w.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		w.Fatal(err)
	}
	words := f.words
	if strings.HasSuffix(name, ".nft") {
		words = strings.ReplaceAll(strings.ReplaceAll(words, "/32", ""), "/128", "")
	}
	return strings.NewReplacer(strings.Fields(words)...).Replace(string(text))
}

// result is how a command ended.
type result struct {
	code     int
	out, err string
}

// run executes a command on the node.
func (w *world) run(stdin, program string, args ...string) result {
	w.Helper()
	cmd := exec.Command(program, args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	p, err := w.node.Start(cmd)
	if err != nil {
		w.Fatal(err)
	}
	select {
	case <-p.Done():
	case <-time.After(patience):
		w.Fatalf("%s does not end", cmd)
	}
	r := result{out: out.String(), err: errOut.String()}
	var exit *exec.ExitError
	if errors.As(p.Err(), &exit) {
		r.code = exit.ExitCode()
	} else if p.Err() != nil {
		w.Fatal(p.Err())
	}
	return r
}

// must executes a command that has to succeed, and returns its output.
func (w *world) must(stdin, program string, args ...string) string {
	w.Helper()
	r := w.run(stdin, program, args...)
	if r.code != 0 {
		w.Fatalf("%s %s: exit code %d\n%s%s", program, strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// migrate executes ebb migrate, and expects an exit code.
func (w *world) migrate(code int, args ...string) result {
	w.Helper()
	r := w.run("", ebb, append([]string{"migrate"}, args...)...)
	if r.code != code {
		w.Fatalf("ebb migrate %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.out, r.err)
	}
	return r
}

// counters are those of chains and rules.
var counters = regexp.MustCompile(`\[\d+:\d+\]|counter packets \d+ bytes \d+`)

// saved returns all rules of iptables and nftables that there are. The backend of
// iptables that uses nftables is there twice.
func (w *world) saved() string {
	w.Helper()
	var b strings.Builder
	for _, f := range families() {
		for _, backend := range []string{"-nft", "-legacy"} {
			for line := range strings.Lines(w.must("", f.iptables+backend+"-save")) {
				if line[0] != '#' { // the time
					b.WriteString(f.iptables + backend + " " + line)
				}
			}
		}
	}
	b.WriteString(w.must("", "nft", "list", "ruleset"))
	return counters.ReplaceAllString(b.String(), "")
}
