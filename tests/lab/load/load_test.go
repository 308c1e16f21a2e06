package load

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/tests/lab/pod"
)

// startPod runs a pod on loopback and returns its addresses.
func startPod(t *testing.T) (http, udp string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- pod.New(pod.Config{Name: "p"}).Run(ctx, l, c, nil) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), c.LocalAddr().String()
}

// startBroken runs a server that sends answer to every connection, closes it,
// and never answers a datagram.
func startBroken(t *testing.T, answer string) (http, udp string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1024))
			_, _ = conn.Write([]byte(answer))
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); c.Close() })
	return l.Addr().String(), c.LocalAddr().String()
}

func testConfig(http, udp string) Config {
	return Config{
		HTTP: []string{http}, UDP: []string{udp},
		Connects: 200, Transfers: 2, Rate: 100_000, Flows: 50, Datagrams: 2, Gap: time.Millisecond,
		RequestTimeout: time.Second, DatagramTimeout: 50 * time.Millisecond, StallTimeout: time.Second,
		ReportEvery: 10 * time.Millisecond,
	}
}

// play runs acts, each until it has at least ten operations of each kind, and
// returns the final report.
func play(t *testing.T, cfg Config, acts ...Command) Report {
	t.Helper()
	commands := make(chan Command, len(acts)+1)
	var last Report
	commands <- acts[0]
	playing := 1
	err := NewRunner(cfg).Run(t.Context(), commands, func(r Report) error {
		last = r
		if len(r.Acts) != playing || !enough(r.Acts[playing-1]) {
			return nil
		}
		if playing < len(acts) {
			commands <- acts[playing]
		} else {
			commands <- Command{Stop: true}
		}
		playing++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return last
}

func enough(a ActReport) bool {
	return a.Kinds[TCP].Requests >= 10 && a.Kinds[UDP].Requests >= 10 && a.Kinds[Transfer].Requests >= 2
}

func TestLoadOnAWorkingPodHasNoFailures(t *testing.T) {
	r := play(t, testConfig(startPod(t)), Command{Act: "one", TransferMillis: 50}, Command{Act: "two", TransferMillis: 50})
	if !r.Final || len(r.Acts) != 2 || r.Acts[0].Name != "one" || r.Acts[1].Name != "two" {
		t.Fatalf("report is not the final one of two acts: %+v", r)
	}
	for _, a := range r.Acts {
		if _, failed := a.Totals(); failed != 0 {
			t.Errorf("act %s: %d failed: %+v", a.Name, failed, r.Failures)
		}
		if k := a.Kinds[TCP]; k.P50Micros <= 0 || k.P99Micros < k.P50Micros {
			t.Errorf("act %s: p50 %d µs, p99 %d µs", a.Name, k.P50Micros, k.P99Micros)
		}
	}
	if len(r.Pods) != 1 || r.Pods[0].Pod != "p" || r.Pods[0].Connections < 20 || r.Pods[0].Transfers < 4 || r.Pods[0].Datagrams < 20 {
		t.Errorf("pods: %+v", r.Pods)
	}
}

func TestWrongAnswersAreFailures(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nX-Pod: p\r\n"
	tests := []struct {
		name, answer, want string
	}{
		{"connection closed without an answer", "", "EOF"},
		{"another's answer", head + "Content-Length: 4\r\n\r\nnope", "wrong answer"},
		{"an answer cut short", head + "Content-Length: 40\r\n\r\nnope", "unexpected EOF"},
		{"an error status", "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "503 Busy"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			http, _ := startBroken(t, tc.answer)
			if _, err := ask(t.Context(), http, "question"); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestEveryKindOfFailureIsCountedAndTold(t *testing.T) {
	http, udp := startBroken(t, "HTTP/1.1 200 OK\r\nX-Pod: p\r\nContent-Length: 9999\r\n\r\nshort")
	r := play(t, testConfig(http, udp), Command{Act: "one", TransferMillis: 50})
	told := map[Kind]bool{}
	for _, f := range r.Failures {
		told[f.Kind] = true
		if f.Act != "one" || f.Error == "" || f.Target == "" {
			t.Errorf("failure says too little: %+v", f)
		}
	}
	for kind, k := range r.Acts[0].Kinds {
		if k.Requests == 0 || k.Failed != k.Requests || !told[kind] {
			t.Errorf("%s: %d of %d failed, told %t", kind, k.Failed, k.Requests, told[kind])
		}
	}
}

func TestWrongContentFailsATransfer(t *testing.T) {
	http, _ := startBroken(t, "HTTP/1.1 200 OK\r\nX-Pod: p\r\nContent-Length: 5\r\n\r\nwrong")
	_, err := NewRunner(testConfig(http, "")).receive(t.Context(), http, 5)
	if err == nil || !strings.Contains(err.Error(), "differs") {
		t.Errorf("got %v", err)
	}
}

func TestLateAnswersOfAFlowAreSkippedAndForeignOnesAreNot(t *testing.T) {
	tests := []struct {
		name    string
		answers []string
		wrong   bool
	}{
		{"the answer alone", []string{"flow 1: 3 p"}, false},
		{"a late answer first", []string{"flow 1: 2 p", "flow 1: 3 p"}, false},
		{"the answer of another flow", []string{"flow 2: 3 p"}, true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			server, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			conn, err := newPorts().dial(t.Context(), server.LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for _, a := range tc.answers {
				if _, err := server.WriteTo([]byte(a), conn.LocalAddr()); err != nil {
					t.Fatal(err)
				}
			}
			name, err := exchange(conn, "flow 1: ", 3, 5*time.Second)
			if (err != nil) != tc.wrong || (err == nil && name != "p") {
				t.Errorf("got %q, %v", name, err)
			}
		})
	}
}

func TestATransferEndsWithItsAct(t *testing.T) {
	now := time.Now()
	tests := []struct {
		name string
		act  act
		want time.Duration
	}{
		{"no end known", act{transfer: time.Second}, time.Second},
		{"the end is far", act{transfer: time.Second, ends: now.Add(time.Minute)}, time.Second},
		{"the end is near", act{transfer: time.Minute, ends: now.Add(2 * time.Second)}, 2 * time.Second},
		{"the end is here", act{transfer: time.Minute, ends: now}, shortestTransfer},
		{"the end has passed", act{transfer: time.Minute, ends: now.Add(-time.Second)}, lateTransfer},
		{"the end of short ones has passed", act{transfer: time.Second, ends: now.Add(-time.Second)}, time.Second},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.act.transferTime(now); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestQuantiles(t *testing.T) {
	var h histogram
	if got := h.quantile(0.99); got != 0 {
		t.Errorf("of nothing: %s", got)
	}
	for i := 1; i <= 10000; i++ {
		h.add(time.Duration(i) * 10 * time.Microsecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 50 * time.Millisecond, 0.99: 99 * time.Millisecond, 1: 100 * time.Millisecond} {
		if got := h.quantile(q); got < want || got > want+want/16 {
			t.Errorf("quantile %v is %s, want %s or up to a sixteenth more", q, got, want)
		}
	}
}

func TestBucketsHoldTheirDurations(t *testing.T) {
	for us := int64(0); us < 1<<22; us += 1 + us/50 {
		d := time.Duration(us) * time.Microsecond
		b := bucketOf(d)
		if upper(b) < d || (b > 0 && upper(b-1) >= d) {
			t.Fatalf("%s is in bucket %d, which ends at %s", d, b, upper(b))
		}
	}
}

func TestCommandsAndReportsAreLines(t *testing.T) {
	var buf bytes.Buffer
	want := []Command{{Act: "one", TransferMillis: 5, EndsInMillis: 7}, {Stop: true}}
	for _, c := range want {
		if err := WriteLine(&buf, c); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(buf.String(), "\n"); n != 2 {
		t.Errorf("two commands are %d lines", n)
	}
	var got []Command
	for c := range ReadCommands(&buf) {
		got = append(got, c)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("commands (-want +got):\n%s", d)
	}
}

func TestLoadWithoutStopIsAnError(t *testing.T) {
	commands := make(chan Command)
	close(commands)
	err := NewRunner(testConfig("", "")).Run(t.Context(), commands, func(Report) error { return nil })
	if err == nil {
		t.Error("commands ended without stop, and nobody noticed")
	}
}

func TestASlowMachineGetsLessLoadAndMorePatience(t *testing.T) {
	normal, slow := DefaultConfig(), DefaultConfig().SlowedBy(4)
	if slow.Connects*4 != normal.Connects || slow.Flows*4 != normal.Flows || slow.Rate*4 != normal.Rate {
		t.Errorf("load %+v, want a quarter of %+v", slow, normal)
	}
	if slow.RequestTimeout != 4*normal.RequestTimeout || slow.DatagramTimeout != 4*normal.DatagramTimeout ||
		slow.StallTimeout != 4*normal.StallTimeout {
		t.Errorf("patience %+v, want four times that of %+v", slow, normal)
	}
	if idle := normal.SlowedBy(1 << 20); idle.Connects < 1 || idle.Flows < 1 || idle.Rate < 1 {
		t.Errorf("no load is left: %+v", idle)
	}
}
