package pod

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/ebb-lb/ebb/tests/lab/content"
)

const (
	// maxStream bounds /stream, in bytes.
	maxStream = 1 << 30
	// A paced stream sends a packet's worth (segment, in bytes) at a time, but not
	// more often than shortestSlice, nor less often than longestSlice.
	segment       = 1 << 10
	shortestSlice = 20 * time.Millisecond
	longestSlice  = 100 * time.Millisecond
	// chunk is the most a stream writes at once, in bytes.
	chunk = 32 << 10
)

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /echo/{text}", s.serveEcho)
	mux.HandleFunc("GET /peer", s.servePeer)
	mux.HandleFunc("GET /stream", s.serveStream)
	return mux
}

// serveEcho answers with the text of the path, so that a client can tell its
// own answer from another's.
func (s *Server) serveEcho(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(Header, s.cfg.Name)
	fmt.Fprint(w, r.PathValue("text"))
}

// servePeer answers with the address the pod sees its client at.
func (s *Server) servePeer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(Header, s.cfg.Name)
	fmt.Fprint(w, r.RemoteAddr)
}

// stream is what /stream is asked for.
type stream struct {
	bytes int64
	seed  uint64
	rate  int64 // bytes per second; 0: as fast as possible
}

func parseStream(q url.Values) (stream, error) {
	var s stream
	var err error
	if s.bytes, err = strconv.ParseInt(q.Get("bytes"), 10, 64); err != nil || s.bytes < 0 || s.bytes > maxStream {
		return s, fmt.Errorf("bytes %q: want a number from 0 to %d", q.Get("bytes"), maxStream)
	}
	if q.Has("seed") {
		if s.seed, err = strconv.ParseUint(q.Get("seed"), 10, 64); err != nil {
			return s, fmt.Errorf("seed %q: want a number", q.Get("seed"))
		}
	}
	if q.Has("rate") {
		if s.rate, err = strconv.ParseInt(q.Get("rate"), 10, 64); err != nil || s.rate < 0 {
			return s, fmt.Errorf("rate %q: want bytes per second", q.Get("rate"))
		}
	}
	return s, nil
}

// serveStream sends ?bytes=N bytes of the content of ?seed=N, at ?rate=N bytes
// per second.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request) {
	st, err := parseStream(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set(Header, s.cfg.Name)
	w.Header().Set("Content-Length", strconv.FormatInt(st.bytes, 10))
	st.send(w, r.Context().Done())
}

// send writes until everything is sent, the client is gone, or done is closed.
func (s stream) send(w http.ResponseWriter, done <-chan struct{}) {
	tick := time.NewTicker(s.slice())
	defer tick.Stop()
	flush := http.NewResponseController(w)
	buf := make([]byte, chunk)
	began := time.Now()
	for offset := int64(0); offset < s.bytes; {
		n := min(s.due(time.Since(began))-offset, chunk)
		if n <= 0 {
			select {
			case <-tick.C:
				continue
			case <-done:
				return
			}
		}
		content.Fill(buf[:n], s.seed, offset)
		if _, err := w.Write(buf[:n]); err != nil {
			return
		}
		if err := flush.Flush(); err != nil {
			return
		}
		offset += n
	}
}

// slice is how often s sends.
func (s stream) slice() time.Duration {
	full := longestSlice
	if s.rate > 0 {
		full = segment * time.Second / time.Duration(s.rate)
	}
	return max(shortestSlice, min(full, longestSlice))
}

// due returns how many bytes should have been sent after d.
func (s stream) due(d time.Duration) int64 {
	if s.rate == 0 {
		return s.bytes
	}
	return min(s.bytes, (d+s.slice()).Microseconds()*s.rate/1_000_000)
}
