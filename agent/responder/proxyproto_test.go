package responder

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// serveOK answers everything with 200 on the returned address.
func serveOK(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := serve(l.(*net.TCPListener), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) }))
	t.Cleanup(func() { s.stopListening(); s.finish() })
	return l.Addr().String()
}

func TestAPROXYHeaderIsSkipped(t *testing.T) {
	v2 := func(length string, rest string) string { return v2Prefix + "\x21\x11" + length + rest }
	const request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
	tests := []struct {
		name, header string
		want         int // 0: no answer of the handler
	}{
		{"none", "", 200},
		{"version 1, IPv4", "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", 200},
		{"version 1, IPv6, the longest there is", "PROXY TCP6 " + strings.Repeat("ffff:", 7) + "ffff " + strings.Repeat("ffff:", 7) + "ffff 65535 65535\r\n", 200},
		{"version 1, unknown", "PROXY UNKNOWN\r\n", 200},
		{"version 2, IPv4", v2("\x00\x0c", strings.Repeat("\x01", 12)), 200},
		{"version 2, local, nothing in it", v2Prefix + "\x20\x00\x00\x00", 200},
		{"version 2, with 5000 bytes of extensions", v2("\x13\x88", strings.Repeat("x", 5000)), 200},
		{"version 1 without an end", "PROXY " + strings.Repeat("x", 200), 0},
	}
	addr := serveOK(t)
	for _, tc := range tests {
		for _, step := range []int{1 << 20, 1, 13} {
			t.Run(fmt.Sprintf("%s, %d bytes at a time", tc.name, step), func(t *testing.T) {
				if code := send(t, addr, tc.header+request, step); code != tc.want {
					t.Errorf("status %d, want %d", code, tc.want)
				}
			})
		}
	}
}

// A method may begin like a header.
func TestWhatOnlyBeginsLikeAPROXYHeaderIsARequest(t *testing.T) {
	addr := serveOK(t)
	for _, method := range []string{"P", "PR", "PROPFIND", "PROXYX", "POST"} {
		if code := send(t, addr, method+" / HTTP/1.1\r\nHost: x\r\n\r\n", 1); code != 200 {
			t.Errorf("%s: status %d", method, code)
		}
	}
}

// send returns the status of the answer to text, 0 if there is none but that of
// a bad request.
func send(t *testing.T, addr, text string, step int) int {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for len(text) > 0 {
		n := min(step, len(text))
		if _, err := conn.Write([]byte(text[:n])); err != nil {
			return 0 // refused before the end
		}
		text = text[n:]
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode == http.StatusBadRequest {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}
