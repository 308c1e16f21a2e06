package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

const (
	// enough is how many connections show which pods a service leads to: with three pods, one
	// is missed by chance once in 1300 times, and then asked for again.
	enough = 20
	// askBound is how long one answer may take, silence how long none is
	// waited for.
	askBound = 2 * time.Second
	silence  = 300 * time.Millisecond
)

// answer is what a pod says.
type answer struct {
	pod  string
	peer netip.Addr // the client as the pod sees it; invalid: not told
}

// ask opens a connection from ns.
func ask(ctx context.Context, ns *lab.NS, target netip.AddrPort, bound time.Duration) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	header, body, err := get(ctx, ns, "http://"+target.String()+"/peer")
	if err != nil {
		return answer{}, err
	}
	peer, err := netip.ParseAddrPort(body)
	return answer{pod: header.Get(pod.Header), peer: peer.Addr().Unmap()}, err
}

// askUDP sends a datagram from ns.
func askUDP(ctx context.Context, ns *lab.NS, target netip.AddrPort, bound time.Duration) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	conn, err := ns.Dial(ctx, "udp", target.String())
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write([]byte("hello")); err != nil {
		return answer{}, err
	}
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	if err != nil {
		return answer{}, err
	}
	name, ok := strings.CutPrefix(string(buf[:n]), "hello ")
	if !ok {
		return answer{}, fmt.Errorf("wrong answer %q", buf[:n])
	}
	return answer{pod: name}, nil
}

// asker is ask or askUDP.
type asker func(context.Context, *lab.NS, netip.AddrPort, time.Duration) (answer, error)

// answers waits until exactly these pods answer at target.
func (c *cluster) answers(ctx context.Context, target netip.AddrPort, pods ...string) error {
	return c.answered(ctx, ask, target, pods, nil)
}

// answered waits until exactly these pods answer, and each answer is right.
func (c *cluster) answered(ctx context.Context, ask asker, target netip.AddrPort, pods []string, right func(answer) error) error {
	return answeredFrom(ctx, c.lab.Client, ask, target, pods, right)
}

func answeredFrom(ctx context.Context, ns *lab.NS, ask asker, target netip.AddrPort, pods []string, right func(answer) error) error {
	slices.Sort(pods)
	return await(ctx, patience, func() error {
		var seen []string
		for range enough {
			a, err := ask(ctx, ns, target, askBound)
			if err == nil && right != nil {
				err = right(a)
			}
			if err != nil {
				return fmt.Errorf("%s, which should lead from %s to %v: %w", target, ns.Name(), pods, err)
			}
			seen = append(seen, a.pod)
		}
		slices.Sort(seen)
		if seen = slices.Compact(seen); !slices.Equal(seen, pods) {
			return fmt.Errorf("%s leads from %s to %v, want %v", target, ns.Name(), seen, pods)
		}
		return nil
	})
}

// silent waits until nobody answers at target any more.
func (c *cluster) silent(ctx context.Context, ask asker, target netip.AddrPort) error {
	return await(ctx, patience, func() error {
		for range 3 {
			a, err := ask(ctx, c.lab.Client, target, silence)
			if err == nil {
				return fmt.Errorf("%s leads to %s, want nobody", target, a.pod)
			}
			if failure := net.Error(nil); !errors.As(err, &failure) {
				return fmt.Errorf("%s: want nobody there, got %w", target, err)
			}
		}
		return nil
	})
}
