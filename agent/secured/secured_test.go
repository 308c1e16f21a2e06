package secured

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-lb/ebb/agent/noted"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/maps/mapstest"
)

// node is a kernel with policies, and what programs know. Its settings are not the
// machine's: IPv4 is left out where they would be written.
type node struct {
	policies []netip.Prefix
	refuse   error
	tell     func()
	fake     *mapstest.Fake
	changed  []bool // what Any said each time programs were told
	problem  string
	keeper   *Keeper
}

func newNode(t *testing.T, policies ...string) *node {
	n := &node{fake: mapstest.New(maps.DefaultSizes()), policies: prefixes(policies...)}
	n.keeper = New(Parts{
		Kernel: n, Ranges: n.fake.Secured(), Changed: func() { n.changed = append(n.changed, n.keeper.Any()) },
		Settings: noted.Settings(filepath.Join(t.TempDir(), "note")),
		Warn: func(problem string) bool {
			news := problem != n.problem
			n.problem = problem
			return news
		},
		Log: slog.New(slog.DiscardHandler),
	})
	return n
}

func (n *node) Secured() ([]netip.Prefix, error) { return n.policies, n.refuse }

func (n *node) Watch(ctx context.Context, tell func()) error {
	n.tell = tell
	tell()
	<-ctx.Done()
	return nil
}

func prefixes(all ...string) (out []netip.Prefix) {
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func (n *node) wantKnown(t *testing.T, want ...string) {
	t.Helper()
	all, err := n.fake.Secured().All()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for p := range all {
		got = append(got, p.String())
	}
	slices.Sort(got)
	if !slices.Equal(got, want) || n.keeper.Any() != (len(want) > 0) {
		t.Errorf("programs know %q, any: %v; want %q", got, n.keeper.Any(), want)
	}
}

func TestProgramsKnowThePoliciesThereAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.keeper.Run(ctx) }()
		synctest.Wait()
		n.wantKnown(t)
		for _, want := range [][]string{{"fd00:2::/64"}, {"fd00:2::/64", "fd00:3::/64"}, {"fd00:3::/64"}, nil} {
			n.policies = prefixes(want...)
			n.tell()
			synctest.Wait()
			n.wantKnown(t, want...)
		}
		if want := []bool{true, true, true, false}; !slices.Equal(n.changed, want) {
			t.Errorf("told %v, want %v", n.changed, want)
		}
		n.policies = prefixes("fd00:4::/64") // nobody tells
		time.Sleep(interval)
		synctest.Wait()
		n.wantKnown(t, "fd00:4::/64")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// An agent that starts, and one that may not ask, leave what is known as it is.
func TestWhatIsKnownHoldsUntilThePoliciesAre(t *testing.T) {
	n := newNode(t, "fd00:2::/64")
	n.keeper.Look()
	n.refuse = errors.New("refused")
	again := New(n.keeper.parts)
	n.keeper = again
	again.Look()
	n.wantKnown(t, "fd00:2::/64")
	if n.problem != "refused" {
		t.Errorf("the problem is %q", n.problem)
	}
	n.refuse = nil
	if again.Look(); n.problem != "" {
		t.Errorf("there still is %q", n.problem)
	}
}

func TestMorePoliciesThanThereIsRoomForSecureEverything(t *testing.T) {
	var many []netip.Prefix
	for i := range most + 1 {
		many = append(many, netip.MustParsePrefix(fmt.Sprintf("fd00:%x::/64", i)))
	}
	want := prefixes("0.0.0.0/0", "::/0")
	if got := bounded(many); !slices.Equal(got, want) {
		t.Errorf("%d of them: %v, want %v", len(many), got, want)
	}
	if got := bounded(many[1:]); len(got) != most {
		t.Errorf("%d of them: %v", most, got)
	}
}
