package sourceports

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func mustParse(t *testing.T, text string) Set {
	t.Helper()
	s, err := ParseSet(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSetsAreReadAndWrittenAsTheKernelDoes(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "\n": "", "80": "80", "1024-29999\n": "1024-29999", "1,2-4,10-10": "1-4,10", "65535,0": "0,65535",
		"5-9,7-20": "5-20", "63,64,127,128": "63-64,127-128", "0-65535": "0-65535",
	} {
		if got := mustParse(t, in).String(); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	for _, in := range []string{"x", "2-1", "65536", "-", "1-", "1 2", "1-2-3"} {
		if s, err := ParseSet(in); err == nil {
			t.Errorf("%q was read as %s", in, s)
		}
	}
}

func TestSetsAreWhatTheirPortsSay(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	some := func() (s Set, in [1 << 16]bool) {
		for range 5 {
			first := r.IntN(1 << 16)
			last := min(first+r.IntN(9000), 1<<16-1)
			s = s.Or(SetOf(Range{uint16(first), uint16(last)}))
			for p := first; p <= last; p++ {
				in[p] = true
			}
		}
		return s, in
	}
	for range 20 {
		a, inA := some()
		b, inB := some()
		or, and, without := a.Or(b), a.And(b), a.Without(b)
		n := 0
		for p := range inA {
			if or.has(p) != (inA[p] || inB[p]) || and.has(p) != (inA[p] && inB[p]) || without.has(p) != (inA[p] && !inB[p]) {
				t.Fatalf("port %d", p)
			}
			if inA[p] {
				n++
			}
		}
		if again := mustParse(t, a.String()); again != a || a.Len() != n || SetOf(a.Ranges()...) != a {
			t.Fatalf("%s: read as %s, %d ports, want %d", a, again, a.Len(), n)
		}
	}
}

func TestPortsSuitTheNode(t *testing.T) {
	var none Range
	def := Range{32768, 60999} // the kernel's
	for _, tc := range []struct {
		name      string
		want      Range
		ephemeral Range
		reserved  string
		ports     Range
		reserve   string
		left      int
		warning   string
		err       string
	}{
		{name: "the kernel's range", ephemeral: def, ports: usual, left: 28232},
		{name: "unknown", ports: usual, left: 1},
		{name: "all that is not privileged", ephemeral: Range{1024, 65535}, ports: usual, reserve: "1024-29999", left: 35536},
		{name: "all ports", ephemeral: Range{1, 65535}, ports: usual, reserve: "1024-29999", left: 35536 + 1023},
		{name: "some of them", ephemeral: Range{20000, 60999}, ports: usual, reserve: "20000-29999", left: 31000},
		{name: "others have reserved some", ephemeral: Range{1024, 65535}, reserved: "8080,40000-49999", ports: usual, reserve: "1024-29999", left: 25536},
		{name: "sockets have the usual range", ephemeral: Range{1024, 29999}, ports: Range{32768, 65535}, left: 28976, warning: "get 32768-65535"},
		{name: "sockets have a part of it and little else", ephemeral: Range{10000, 33000}, ports: Range{33001, 65535}, left: 23001, warning: "less than 4096"},
		{name: "sockets need all", ephemeral: Range{1024, 65535}, reserved: "30000-65535", ports: usual, left: 28976, warning: "share 1024-29999"},
		{name: "asked for, apart", want: Range{61000, 65535}, ephemeral: def, ports: Range{61000, 65535}, left: 28232},
		{name: "asked for, overlapping", want: Range{30000, 40000}, ephemeral: def, ports: Range{30000, 40000}, reserve: "32768-40000", left: 20999, warning: "30000-32767"},
		{name: "asked for, among node ports", want: Range{32000, 32100}, ephemeral: def, ports: Range{32000, 32100}, left: 28232, warning: "node ports"},
		{name: "asked for, all", want: Range{1024, 65535}, ephemeral: def, err: "leaves the node's sockets 0 ports"},
		{name: "asked for, all but few", want: Range{1024, 57000}, ephemeral: def, err: "use --snat-ports 1024-29999"},
		{name: "asked for what sockets have", want: Range{1024, 29999}, ephemeral: Range{1024, 29999}, err: "use --snat-ports 32768-65535"},
		{name: "sockets have few anyway", want: none, ephemeral: Range{50000, 50100}, ports: usual, left: 101},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := Node{Ephemeral: tc.ephemeral, Reserved: mustParse(t, tc.reserved)}
			c, err := Choose(tc.want, n)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want one with %q", err, tc.err)
				}
				return
			}
			if err != nil || c.Ports != tc.ports || c.Reserve.String() != tc.reserve || c.Left != tc.left {
				t.Errorf("%s, reserve %s, left %d, %v; want %s, %s, %d", c.Ports, c.Reserve, c.Left, err, tc.ports, tc.reserve, tc.left)
			}
			said := strings.Join(c.Warnings, "\n")
			if !strings.Contains(said, tc.warning) || (tc.warning == "") != (said == "") {
				t.Errorf("warnings %q, want %q", c.Warnings, tc.warning)
			}
			if again, _ := Reserve(c.Ports, n); again != c.Reserve {
				t.Errorf("later %s is reserved, at first %s", again, c.Reserve)
			}
		})
	}
}

// Whatever the node is like: never a port of a node port or a privileged one,
// and sockets keep enough, unless they have little to begin with.
func TestAnyNodeGetsPortsThatHurtNobody(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		ends := []int{r.IntN(1 << 16), r.IntN(1 << 16)}
		slices.Sort(ends)
		n := Node{Ephemeral: Range{uint16(ends[0]), uint16(ends[1])}}
		if r.IntN(2) == 0 {
			first := r.IntN(1 << 16)
			n.Reserved = SetOf(Range{uint16(first), uint16(min(first+r.IntN(1<<15), 1<<16-1))})
		}
		c, err := Choose(Range{}, n)
		if err != nil {
			t.Fatal(err)
		}
		mine := SetOf(c.Ports)
		if mine.Len() < least || mine.Without(spare) != (Set{}) || c.Reserve.Without(mine.And(SetOf(n.Ephemeral))) != (Set{}) {
			t.Fatalf("%s, reserved by others %s: %s, reserve %s", n.Ephemeral, n.Reserved, c.Ports, c.Reserve)
		}
		if c.Reserve.Len() > 0 && c.Left < least {
			t.Fatalf("%s, reserved by others %s: %d ports left", n.Ephemeral, n.Reserved, c.Left)
		}
		if shares := mine.And(SetOf(n.Ephemeral)).Without(c.Reserve); shares.Without(n.Reserved).Len() > 0 && len(c.Warnings) == 0 {
			t.Fatalf("%s, reserved by others %s: shares %s and does not say so", n.Ephemeral, n.Reserved, shares)
		}
	}
}
