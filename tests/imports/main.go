// Command imports checks that imports run one way (docs/architecture.md):
// cmd -> agent -> loader -> maps -> bpf, the pure packages of the agent do no
// I/O, and client-go stays in its one place. The headers of bpf/ have layers, too.
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

const module = "github.com/ebb-lb/ebb/"

// rule forbids the packages below from to import anything that begins with deny.
type rule struct {
	from, except string
	deny         []string
	why          string
}

func rules() []rule {
	pure := []string{"os", "net", "time/tzdata", "github.com/cilium/ebpf", "k8s.io/", "github.com/vishvananda"}
	return []rule{
		{"bpf", "", []string{module}, "the datapath knows nobody"},
		{"maps", "", []string{module + "loader", module + "agent", module + "cmd", "k8s.io/"}, "maps are below all but bpf"},
		{"loader", "", []string{module + "agent", module + "cmd", "k8s.io/"}, "the loader knows no policy"},
		{"agent", "agent/watch", []string{"k8s.io/client-go", "k8s.io/api/"}, "Kubernetes types stop in agent/watch"},
		{"agent", "", []string{module + "cmd", module + "tests", module + "bpf"}, "the agent reaches maps by package maps"},
		{"agent/service", "", pure, "the model does no I/O"},
		{"agent/endpoints", "", pure, "choices are pure"},
		{"agent/drain", "", pure, "what drains a node is pure"},
		{"agent/maglev", "", pure, "tables are pure"},
		{"agent/ids", "", pure, "ids are pure"},
		{"agent/plan", "", pure, "plans are pure"},
		{"agent/reconcile", "", append(pure, module+"loader"), "the loop runs against any maps and devices"},
	}
}

func main() {
	broken, err := check()
	if err == nil {
		var headers []string
		headers, err = checkHeaders("bpf")
		broken = append(broken, headers...)
	}
	for _, b := range broken {
		fmt.Fprintln(os.Stderr, b)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "imports:", err)
	}
	if err != nil || len(broken) > 0 {
		os.Exit(1)
	}
}

func check() ([]string, error) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		return nil, fmt.Errorf("list packages: %w", err)
	}
	var broken []string
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		for _, r := range rules() {
			broken = append(broken, r.check(strings.TrimPrefix(fields[0], module), fields[1:])...)
		}
	}
	return broken, lines.Err()
}

func (r rule) check(pkg string, imports []string) []string {
	if !below(pkg, r.from) || r.except != "" && below(pkg, r.except) {
		return nil
	}
	var broken []string
	for _, i := range imports {
		for _, d := range r.deny {
			if i == d || strings.HasSuffix(d, "/") && strings.HasPrefix(i, d) || strings.HasPrefix(i, d+"/") && d != "net" {
				broken = append(broken, fmt.Sprintf("%s imports %s: %s", pkg, i, r.why))
			}
		}
	}
	return broken
}

func below(pkg, dir string) bool { return pkg == dir || strings.HasPrefix(pkg, dir+"/") }
