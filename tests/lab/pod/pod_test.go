package pod

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-lb/ebb/tests/lab/content"
)

// running is a pod on loopback.
type running struct {
	http, udp string
	drain     chan struct{}
	ended     chan error
}

func run(t *testing.T, cfg Config) *running {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{
		http: l.Addr().String(), udp: c.LocalAddr().String(),
		drain: make(chan struct{}), ended: make(chan error, 1),
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.ended <- New(cfg).Run(ctx, l, c, r.drain)
	}()
	t.Cleanup(func() { stop(); <-done })
	return r
}

func (r *running) get(t *testing.T, path string) *http.Response {
	t.Helper()
	resp, err := http.Get("http://" + r.http + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestAnswersNameThePod(t *testing.T) {
	r := run(t, Config{Name: "web-1"})
	resp := r.get(t, "/echo/abc")
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "abc" || resp.Header.Get(Header) != "web-1" {
		t.Errorf("got %q from %q, %v", body, resp.Header.Get(Header), err)
	}
	conn, err := net.Dial("udp", r.udp)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("ping 1")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	if err != nil || string(buf[:n]) != "ping 1 web-1" {
		t.Errorf("got datagram %q, %v", buf[:n], err)
	}
}

func TestStreamSendsTheContentOfItsSeed(t *testing.T) {
	r := run(t, Config{Name: "p"})
	resp := r.get(t, "/stream?bytes=100000&seed=9")
	v := content.NewVerifier(9)
	if n, err := io.Copy(v, resp.Body); err != nil || n != 100000 {
		t.Errorf("got %d bytes, %v", n, err)
	}
}

func TestStreamRefusesWhatItCannotSend(t *testing.T) {
	r := run(t, Config{Name: "p"})
	for _, query := range []string{"", "bytes=-1", "bytes=x", "bytes=99999999999", "bytes=1&rate=-2", "bytes=1&seed=x"} {
		if resp := r.get(t, "/stream?"+query); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: status %d", query, resp.StatusCode)
		}
	}
}

func TestStreamIsPaced(t *testing.T) {
	tests := []struct {
		rate  int64
		after time.Duration
		want  int64
	}{
		{100_000, 0, 2_000}, {100_000, time.Second, 102_000}, {100_000, 5 * time.Second, 502_000}, {100_000, time.Minute, 1_000_000},
		{16 << 10, 0, 1 << 10},                // a packet's worth at once
		{100, 0, 10}, {100, time.Second, 110}, // less: ten times a second
		{0, 0, 1_000_000},
	}
	for _, tc := range tests {
		s := stream{bytes: 1_000_000, rate: tc.rate}
		if got := s.due(tc.after); got != tc.want {
			t.Errorf("at %d bytes per second, after %s: %d bytes are due, want %d", tc.rate, tc.after, got, tc.want)
		}
	}
}

func TestDrainingPodFinishesAnOpenTransferAndServesNewClients(t *testing.T) {
	r := run(t, Config{Name: "p", Quiet: 20 * time.Millisecond, Bound: time.Minute})
	resp := r.get(t, "/stream?bytes=20000&rate=50000&seed=1")
	close(r.drain)
	if body, err := io.ReadAll(r.get(t, "/echo/late").Body); err != nil || string(body) != "late" {
		t.Errorf("a new client of a draining pod got %q, %v", body, err)
	}
	if n, err := io.Copy(content.NewVerifier(1), resp.Body); err != nil || n != 20000 {
		t.Errorf("the open transfer ended after %d bytes, %v", n, err)
	}
	if err := <-r.ended; err != nil {
		t.Errorf("run: %v", err)
	}
	if _, err := net.Dial("tcp", r.http); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a pod that has ended still listens: %v", err)
	}
}

func TestHastyPodFinishesAnOpenTransferAndTurnsAwayNewClients(t *testing.T) {
	closed := make(chan struct{})
	r := run(t, Config{Name: "p", Bound: time.Minute, Hasty: true, Closed: func() { close(closed) }})
	resp := r.get(t, "/stream?bytes=20000&rate=50000&seed=1")
	close(r.drain)
	<-closed
	if _, err := net.Dial("tcp", r.http); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a hasty pod that was asked to end still listens: %v", err)
	}
	if n, err := io.Copy(content.NewVerifier(1), resp.Body); err != nil || n != 20000 {
		t.Errorf("the open transfer ended after %d bytes, %v", n, err)
	}
	if err := <-r.ended; err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestPodTellsAtWhichAddressItSeesItsClient(t *testing.T) {
	r := run(t, Config{Name: "p"})
	conn, err := net.Dial("tcp", r.http)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /peer HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasSuffix(string(answer), "\r\n\r\n"+conn.LocalAddr().String()) {
		t.Errorf("got %q, %v, want %s", answer, err, conn.LocalAddr())
	}
}

func TestWaitIdle(t *testing.T) {
	const quiet, bound = time.Second, 10 * time.Second
	tests := []struct {
		name     string
		before   func(*activity)
		activity func(*activity)
		min, max time.Duration
	}{
		{"an idle pod stays for the quiet period", func(*activity) {}, func(*activity) {},
			quiet, quiet + 100*time.Millisecond},
		{"a datagram starts the period anew", func(*activity) {}, func(a *activity) {
			time.Sleep(900 * time.Millisecond) // of the bubble's clock
			a.touch()
		}, 1900 * time.Millisecond, 2 * time.Second},
		{"an open connection is waited for", (*activity).begin, func(a *activity) {
			time.Sleep(4 * time.Second)
			a.end()
		}, 5 * time.Second, 5100 * time.Millisecond},
		{"a connection that never ends is cut at the bound", (*activity).begin, func(*activity) {},
			bound, bound},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newActivity()
				tc.before(a)
				began := time.Now()
				go tc.activity(a)
				a.waitIdle(t.Context(), quiet, bound)
				if d := time.Since(began); d < tc.min || d > tc.max {
					t.Errorf("waited %s, want %s to %s", d, tc.min, tc.max)
				}
			})
		})
	}
}
