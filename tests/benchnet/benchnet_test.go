package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// ebb is the binary under test, built from the source beside this package.
var ebb string

func TestMain(m *testing.M) { suite.Run(m, &ebb) }

// Each contender carries the traffic of each row, and ebb does so in the hook that
// its contender is named for.
func TestEveryContenderCarriesTraffic(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: creates network namespaces and loads programs")
	}
	cfg := config{rounds: 1, turn: 50 * time.Millisecond, services: []int{3}, programs: []program{{path: ebb}}}
	c, err := newComparison(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := c.measure(t.Context()); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	c.print(&text)
	t.Log("\n" + text.String())
	for _, w := range c.worlds {
		for _, r := range c.rows {
			if rates := c.cells[cellKey{w.name, r.name}].rates; len(rates) != 1 || rates[0] <= 0 {
				t.Errorf("%s, %s: rates %v", w.name, r.name, rates)
			}
		}
		switch {
		case strings.HasPrefix(w.name, "ebb-tc"):
			expectTranslation(t, w, "tc-ingress", "xdp")
		case strings.HasPrefix(w.name, "ebb-xdp"):
			expectTranslation(t, w, "xdp", "tc-ingress")
		}
	}
}

// expectTranslation demands that one hook translated nearly everything.
func expectTranslation(t *testing.T, w *world, by, other string) {
	t.Helper()
	if many, few := translated(t, w, by), translated(t, w, other); many < 100 || few > many/10 {
		t.Errorf("%s: %v packets were translated in %s, %v in %s", w.name, many, by, few, other)
	}
}

// translated returns how many packets a hook has sent to pods.
func translated(t *testing.T, w *world, hook string) (n float64) {
	t.Helper()
	resp, err := get(t.Context(), w.node.NS, "http://"+metricsAddr+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		value, ok := strings.CutPrefix(lines.Text(), fmt.Sprintf(`ebb_packets_total{hook="%s",verdict="to-local"} `, hook))
		if !ok {
			continue
		}
		if _, err := fmt.Sscan(value, &n); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func TestOnlySelectsByContenderAndRow(t *testing.T) {
	k, r := contender{name: "ebb-tc/1"}, row{name: "udp-new-flows"}
	for only, want := range map[string]bool{"": true, "tc/1": true, "new-flows": true, "nft,udp": true, "nft": false, "ebb-tc/10000": false} {
		if got := (config{only: only}).selects(k, r); got != want {
			t.Errorf("-only %q selects %s, %s: %v", only, k.name, r.name, got)
		}
	}
}

func TestQuantiles(t *testing.T) {
	of := []float64{4, 1, 3, 2}
	for part, want := range map[float64]float64{0: 1, 0.25: 1.75, 0.5: 2.5, 1: 4} {
		if got := quantile(of, part); math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %v of %v is %v, want %v", part, of, got, want)
		}
	}
}

func TestFlowsDoNotRepeat(t *testing.T) {
	var f flowNumbers
	seen := map[string]bool{}
	for range 3 * portCount {
		addr, port := f.take()
		b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(nil, addr), port)
		if port < firstPort || seen[string(b)] {
			t.Fatalf("source %x:%d is out of range or not new", addr, port)
		}
		seen[string(b)] = true
	}
}

func TestServicesHaveAddressesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range clusterServices(&world{contender: contender{services: maxServices}}) {
		names := []string{s.addr.String()}
		for _, e := range s.endpoints {
			names = append(names, e.addr.String())
		}
		if slices.ContainsFunc(names, func(n string) bool { return seen[n] }) {
			t.Fatalf("%s shares an address", s.name)
		}
		for _, n := range names {
			seen[n] = true
		}
	}
	if !seen["10.96.62.128"] {
		t.Errorf("the last of %d Services has not the address 10.96.62.128", maxServices)
	}
}
