package topology

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

// Two nodes that announce the same addresses, and routers that change their mind.

// startPeer starts an agent on the other node too, and waits until it is ready.
func (w *world) startPeer(xdp string) *process {
	w.Helper()
	other := w.lab.Nodes[1]
	w.write("peer.yaml", nodeManifest(other))
	args := append(w.agentArgs(), "--source", "dir:"+w.manifests, "--health-responder", "off", "--xdp", xdp, "--unknown-flow", "peer",
		"--node-name", other.Name(), "--state-dir", stateDir(w.T))
	p := w.startOn(other, exec.Command(w.binary, args...))
	w.await("the agent of the other node", p, func() error {
		_, err := get(w.Context(), other.NS, healthURL)
		return err
	})
	return p
}

// addNamer starts a pod that says its name as often as it hears something.
func (w *world) addNamer(n *lab.Node, name string) *lab.Pod {
	w.Helper()
	p, err := n.AddPod(name)
	if err != nil {
		w.Fatal(err)
	}
	l, err := p.Listen(w.Context(), "tcp", fmt.Sprint(":", pod.HTTPPort))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { l.Close() })
	go serveStreams(l, func(conn net.Conn) {
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			fmt.Fprintln(conn, name)
		}
	})
	return p
}

// visit is a connection that is kept, and the pod it is to.
type visit struct {
	conn  net.Conn
	from  *bufio.Reader
	pod   string
	ended bool
}

// visit opens one.
func (w *world) visit(target string) *visit {
	w.Helper()
	conn, err := w.lab.Client.Dial(w.Context(), "tcp", target)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { conn.Close() })
	v := &visit{conn: conn, from: bufio.NewReader(conn)}
	if err := v.ask(patience); err != nil {
		w.Fatal(err)
	}
	return v
}

// ask wants the same pod to answer.
func (v *visit) ask(within time.Duration) error {
	if err := v.conn.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(v.conn, "who?"); err != nil {
		return err
	}
	name, err := v.from.ReadString('\n')
	if err != nil {
		return err
	}
	if v.pod != "" && name != v.pod {
		return fmt.Errorf("%q answers, not %q", name, v.pod)
	}
	v.pod = name
	return nil
}

// became says what has become of visits that ask once more.
type became struct{ wentOn, reset, hung int }

func (w *world) askAgain(visits []*visit) (b became, still []*visit) {
	w.Helper()
	const hangs = 3 * time.Second
	results := make(chan error, len(visits))
	for _, v := range visits {
		go func() {
			err := v.ask(hangs)
			v.ended = err != nil
			results <- err
		}()
	}
	for range visits {
		err := <-results
		var timeout net.Error
		switch {
		case err == nil:
			b.wentOn++
		case errors.As(err, &timeout) && timeout.Timeout():
			b.hung++
		case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
			b.reset++
		default:
			w.Errorf("a connection ended otherwise: %v", err)
		}
	}
	return b, slices.DeleteFunc(visits, func(v *visit) bool { return v.ended })
}

// Connections to pods of the node they came in by so far go on through another one: it
// chooses their pod alike, and passes them on. The source port of those to other nodes is
// known by the first node alone: they are told. Nothing hangs.
func TestConnectionsGoOnWhenRoutersChooseAnotherNode(t *testing.T) {
	t.Parallel()
	for _, xdp := range []string{"native", "off"} {
		t.Run("xdp "+xdp, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			pods := []*lab.Pod{w.addNamer(w.entry, "a1"), w.addNamer(w.entry, "a2"), w.addNamer(w.lab.Nodes[1], "b1")}
			w.publish(pods...)
			entry := w.startAgentWith("--health-responder", "off", "--xdp", xdp, "--unknown-flow", "peer")
			w.await("the agent to be ready", entry, w.healthy)
			w.startPeer(xdp)
			vip4, vip6 := lab.DefaultVIPs()
			var here, there []*visit
			for _, vip := range []netip.Addr{vip4, vip6} {
				for range 30 {
					v := w.visit(netip.AddrPortFrom(vip, httpPort).String())
					if v.pod == "b1\n" {
						there = append(there, v)
					} else {
						here = append(here, v)
					}
				}
			}
			if len(here) < 20 || len(there) < 5 {
				t.Fatalf("%d connections to pods of the entry node, %d to the other: that proves nothing", len(here), len(there))
			}
			n := len(here)
			for _, node := range []*lab.Node{w.lab.Nodes[1], w.entry, w.lab.Nodes[1]} {
				if err := w.lab.RouteVIPs(node.Name()); err != nil {
					t.Fatal(err)
				}
				var b became
				if b, here = w.askAgain(here); b != (became{wentOn: n}) {
					t.Errorf("through %s, to pods of the first node: %+v of %d", node.Name(), b, n)
				}
				if there != nil {
					if b, _ := w.askAgain(there); b.hung != 0 || b.wentOn != 0 {
						t.Errorf("through %s, to pods of the second node: %+v of %d", node.Name(), b, len(there))
					}
					there = nil
				}
			}
		})
	}
}
