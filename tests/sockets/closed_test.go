package sockets

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
)

// connected dials the service web from inside ns, which web-1 alone stands for. UDP
// has been answered once; over TCP pods answer only once, which is left for later.
func (w *world) connected(ns *lab.NS, network, cluster string, port uint16) net.Conn {
	w.Helper()
	conn, err := ns.Dial(w.Context(), network, netip.AddrPortFrom(netip.MustParseAddr(cluster), port).String())
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { conn.Close() })
	if network == "tcp" {
		return conn
	}
	if name, err := nameOf(conn); err != nil || name != "web-1" {
		w.Fatalf("%q answers, error %v", name, err)
	}
	return conn
}

// aborted waits until conn is closed by somebody else.
func aborted(conn net.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 100)); !errors.Is(err, syscall.ECONNABORTED) {
		return errors.Join(errors.New("not closed"), err)
	}
	return nil
}

func TestSocketsConnectedToABackendThatIsGoneAreClosed(t *testing.T) {
	const v4, v6 = "10.96.0.80", "fd00:10:96::80"
	for _, choice := range []string{"keep", "reset"} {
		t.Run(choice, func(t *testing.T) {
			w := newWorld(t, "--on-backend-gone", choice)
			w.publish("web", "web-1")
			w.await("web-1 to be the only one", w.only("web-1"))
			if _, err := w.client.Start(exec.Command("sleep", "infinity")); err != nil { // every pod has a process
				t.Fatal(err)
			}
			var datagrams, streams []net.Conn
			for _, ns := range w.origins() {
				for _, cluster := range []string{v4, v6} {
					datagrams = append(datagrams, w.connected(ns, "udp", cluster, echoPort))
					streams = append(streams, w.connected(ns, "tcp", cluster, httpPort))
				}
			}
			w.publish("web", "web-2")
			for _, c := range datagrams {
				if err := aborted(c); err != nil {
					t.Errorf("UDP to %s: %v", c.RemoteAddr(), err)
				}
			}
			for _, c := range streams {
				if choice == "reset" {
					if err := aborted(c); err != nil {
						t.Errorf("TCP to %s: %v", c.RemoteAddr(), err)
					}
				} else if name, err := nameOf(c); err != nil || name != "web-1" {
					t.Errorf("TCP to %s: %q answers, error %v", c.RemoteAddr(), name, err)
				}
			}
		})
	}
}

// only tells whether new connections all reach the pod of that name, by both families.
func (w *world) only(name string) func() error {
	return func() error {
		for _, cluster := range []string{"10.96.0.80:5353", "[fd00:10:96::80]:5353"} {
			for range 10 {
				got, err := answering(w.Context(), w.node.NS, "udp", cluster)
				if err != nil || got != name {
					return errors.Join(errors.New(got+" answers"), err)
				}
			}
		}
		return nil
	}
}
