package topology

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
	"github.com/ebb-lb/ebb/tests/packet"
)

// Connections whose state is lost, as sockets see it.

// forgetFlows makes the entry node know of no connection.
func (w *world) forgetFlows() {
	w.Helper()
	err := w.entry.Do(func() error {
		set, err := maps.Open(loader.MapsDir(bpffs), false)
		if err != nil {
			return err
		}
		errs := []error{}
		for _, m := range []maps.Flows{set.Flows(), set.HalfOpen()} {
			errs = append(errs, m.Each(func(k maps.FlowKey, _ maps.Flow) bool {
				errs = append(errs, m.Delete(k))
				return true
			}))
		}
		return errors.Join(append(errs, set.Close())...)
	})
	if err != nil {
		w.Fatal(err)
	}
}

// onlyRemote leaves the service the pod of the other node.
func (w *world) onlyRemote() {
	w.Helper()
	remote := w.pods[2]
	w.publish(remote)
	http, _ := w.targets()
	w.poll("new connections to come to the other node only", func() bool {
		for _, target := range http {
			for range 8 {
				if w.servedBy(target) != remote.Name() {
					return false
				}
			}
		}
		return true
	})
}

// servedBy is the pod that answers at target.
func (w *world) servedBy(target string) string {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+target+"/echo/who", nil)
	if err != nil {
		w.Fatal(err)
	}
	resp, err := httpClient(w.lab.Client).Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.Header.Get(pod.Header)
}

// goOn says something on an idle connection, and returns how that ends within d.
func goOn(conn net.Conn, d time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("GET ")); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	return err
}

// idle is a connection to each address of the service.
func (w *world) idle() (conns []net.Conn) {
	w.Helper()
	targets, _ := w.targets()
	for _, target := range targets {
		ctx, cancel := context.WithTimeout(w.Context(), patience)
		conn, err := w.lab.Client.Dial(ctx, "tcp", target)
		cancel()
		if err != nil {
			w.Fatal(err)
		}
		w.Cleanup(func() { _ = conn.Close() })
		conns = append(conns, conn)
	}
	return conns
}

// The client hears at once, and is not left to its retransmissions.
func TestAConnectionWhoseStateIsLostIsResetAtOnce(t *testing.T) {
	everyDatapath(t, func(w *world, _ *process) {
		w.onlyRemote()
		conns := w.idle()
		w.forgetFlows()
		before := w.packets("no-flow")
		for _, conn := range conns {
			if err := goOn(conn, atOnce); !errors.Is(err, syscall.ECONNRESET) {
				w.Errorf("%s: %v, want it reset", conn.RemoteAddr(), err)
			}
		}
		if n := w.packets("no-flow") - before; n < len(conns) {
			w.Errorf("%d packets counted, want %d", n, len(conns))
		}
	})
}

func TestAConnectionWhoseStateIsLostIsSilentIfSoConfigured(t *testing.T) {
	someDatapaths(t, 1, func(w *world, _ *process) {
		w.onlyRemote()
		conns := w.idle()
		w.forgetFlows()
		for _, conn := range conns {
			if err := goOn(conn, atOnce); !errors.Is(err, os.ErrDeadlineExceeded) {
				w.Errorf("%s: %v, want nothing to happen", conn.RemoteAddr(), err)
			}
		}
	}, "--unknown-flow", "drop")
}

// wantAbort checks what an association is told.
func (a *association) wantAbort(kind packet.Chunk) {
	a.w.Helper()
	got, err := a.hear()
	want := message{src: a.target.Port(), dst: a.port, tag: podTag, chunk: kind}
	if err != nil || got != want {
		a.w.Errorf("%s: %+v, %v; want %+v", a.target, got, err, want)
	}
}

func TestAnAssociationWhoseStateIsLostIsAborted(t *testing.T) {
	for _, xdp := range []string{"native", "off"} {
		t.Run("xdp "+xdp, func(t *testing.T) {
			w := newSCTPWorld(t, xdp)
			callers := w.callers()
			remote := w.pods[2]
			w.publishSCTP(remote)
			w.poll("associations to come to the other node only", func() bool { return allAt(remote.Name(), call(4, callers)) })
			all := call(1, callers)
			w.forgetFlows()
			for _, a := range all {
				a.say(packet.Data, podTag)
				a.wantAbort(packet.Abort)
				a.say(packet.ShutdownAck, podTag)
				a.wantAbort(packet.ShutdownComplete)
			}
		})
	}
}

// The packet of a sender in the node's kernel has no checksum yet, and neither has
// the answer that is made of it: whoever sends that out makes one over a field of zero.
func TestAnABORTMadeOfAPacketWithoutChecksumHasNoneEither(t *testing.T) {
	w := newSCTPWorldIn(t, "off", lab.Config{})
	callers := w.callers()
	remote := w.pods[2]
	w.publishSCTP(remote)
	w.poll("associations to come to the other node only", func() bool { return allAt(remote.Name(), call(4, callers)) })
	all := call(1, callers)
	w.forgetFlows()
	for _, a := range all {
		src, src6 := lab.ClientAddrs()
		if a.target.Addr().Is6() {
			src = src6
		}
		sendPartial(t, w.lab.Client, w.lab.Router, "client", packet.Spec{
			Src: netip.AddrPortFrom(src, a.port), Dst: a.target, Proto: maps.SCTP,
			Chunk: packet.Data, Tag: podTag, Payload: []byte("unfinished"),
		})
		b, err := a.receive()
		if err != nil {
			t.Fatal(fmt.Errorf("%s: %w", a.target, err))
		}
		if len(b) != sctpHeader || binary.LittleEndian.Uint32(b[8:]) != 0 ||
			binary.BigEndian.Uint32(b[4:]) != podTag || packet.Chunk(b[12]) != packet.Abort || b[13] != 1 {
			t.Errorf("%s answers %x", a.target, b)
		}
	}
}
