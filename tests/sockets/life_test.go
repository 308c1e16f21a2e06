package sockets

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
)

func TestNobodyNoticesThatAnAgentIsKilledAndReplaced(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if _, err := answering(context.WithoutCancel(ctx), w.client.NS, "tcp", dialled(80)); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	for range 2 {
		w.killAgent()
		if _, err := answering(t.Context(), w.node.NS, "tcp", dialled(80)); err != nil {
			t.Errorf("without an agent: %v", err)
		}
		w.startAgent()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestCleanupTakesProgramsOffSockets(t *testing.T) {
	w := newWorld(t)
	at := fmt.Sprint("127.0.0.1:", httpNodePort)
	w.reaches(w.node.NS, "tcp", at, "web-1", "web-2", "web-3")
	w.killAgent()
	p := w.start(w.node.NS, exec.Command(ebb, "cleanup", "--bpffs", bpffs, "--state-dir", filepath.Join(w.manifests, ".state")))
	<-p.Done()
	if p.Err() != nil {
		t.Fatalf("%v\n%s", p.Err(), p.out)
	}
	if _, err := answering(t.Context(), w.node.NS, "tcp", at); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("after cleanup: %v", err)
	}
	err := w.node.Do(func() error { _, err := os.Stat(loader.LinksDir(bpffs)); return err })
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins: %v", err)
	}
}

func TestOffTakesProgramsOfAnEarlierAgentOffSockets(t *testing.T) {
	w := newWorld(t)
	at := fmt.Sprint("127.0.0.1:", httpNodePort)
	w.reaches(w.node.NS, "tcp", at, "web-1", "web-2", "web-3")
	w.killAgent()
	w.startAgent("--east-west", "off")
	w.refuses(w.node.NS, "tcp", at, unix.ECONNREFUSED)
}

func TestUnconnectedSocketsLeaveABackendThatIsGone(t *testing.T) {
	w := newWorld(t)
	to := netip.MustParseAddrPort(fmt.Sprint("10.96.0.80:", echoPort))
	for origin, ns := range w.origins() {
		t.Run(origin, func(t *testing.T) {
			w := w.in(t)
			w.publish("web", "web-1", "web-2", "web-3")
			w.reaches(ns, "udp", to.String(), "web-1", "web-2", "web-3")
			c, err := ns.ListenPacket(t.Context(), "udp4", "0.0.0.0:0")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			first, err := answeringTo(c, to)
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				if next, err := answeringTo(c, to); err != nil || next != first {
					t.Errorf("%s, %v answers after %s", next, err, first)
				}
			}
			stay := "web-3"
			if first == stay {
				stay = "web-1"
			}
			w.publish("web", stay)
			w.reaches(ns, "udp", to.String(), stay)
			if next, err := answeringTo(c, to); err != nil || next != stay {
				t.Errorf("%s, %v answers, want %s", next, err, stay)
			}
			w.publish("web")
			w.refuses(ns, "udp", to.String(), unix.ECONNREFUSED)
			if _, err := answeringTo(c, to); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("without endpoints: %v", err)
			}
		})
	}
}

func TestSocketsOfPodsLeaveServicesToTheirLinks(t *testing.T) {
	t.Run("by annotation", func(t *testing.T) {
		w := newWorld(t)
		w.write("packet.yaml", service("packet", 83, `, annotations: {ebb-lb.dev/east-west: packet}`, ""))
		w.publish("packet", "web-1")
		w.sync("packet", dialled(83)+"/TCP")
		w.reaches(w.node.NS, "tcp", dialled(83), "web-1")
		w.untouched(fmt.Sprint("10.96.0.83:", echoPort))
		w.reaches(w.client.NS, "tcp", dialled(80), "web-1", "web-2", "web-3")
	})
	t.Run("all", func(t *testing.T) {
		w := newWorld(t, "--east-west", "packet")
		w.reaches(w.node.NS, "tcp", dialled(80), "web-1", "web-2", "web-3")
		w.untouched(fmt.Sprint("10.96.0.80:", echoPort))
	})
}

// untouched fails the test if a pod's connected datagram socket is given a backend.
func (w *world) untouched(addr string) {
	w.Helper()
	before := w.counts()
	c, err := w.client.Dial(w.Context(), "udp", addr)
	if err != nil {
		w.Fatal(err)
	}
	defer c.Close()
	after := w.counts()
	if n := after[maps.VerdictNotService] - before[maps.VerdictNotService]; n == 0 {
		w.Error("the call was not left alone")
	}
	for _, v := range []maps.Verdict{maps.VerdictToLocal, maps.VerdictToRemote} {
		if after[v] != before[v] {
			w.Errorf("%s: %d, was %d", v, after[v], before[v])
		}
	}
}
