// Package fault stands between a client and an API server and makes the server
// look worse than it is: away, slow, busy, forgetful. It understands of the API
// only what a list, a watch and a Status are.
package fault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ebb-lb/ebb/tests/lab"
)

// Fault is what is wrong. The zero Fault is nothing.
type Fault struct {
	// Delay is how long every request waits before it is passed on.
	Delay time.Duration
	// Status, unless 0, is the answer to lists and watches, or to watches only.
	Status      int
	WatchesOnly bool
	// NoBookmarks keeps bookmarks away: lists come as lists, and
	// watches tell nothing but changes.
	NoBookmarks bool
}

// Counts are the requests that have come so far.
type Counts struct {
	Lists, Watches, Refused int
}

// Proxy is a server. Its methods are safe for concurrent use.
type Proxy struct {
	upstream *httputil.ReverseProxy
	server   *http.Server

	mu     sync.Mutex
	fault  Fault
	counts Counts
	conns  map[net.Conn]struct{}
}

// Config says what a Proxy is in front of.
type Config struct {
	// Machine is where both servers are.
	Machine *lab.NS
	// Server is the URL of the real one.
	Server string
	// Cert and Key are files a client of the real server trusts, CA is whom they do.
	Cert, Key, CA string
}

// Listen serves on a port of the machine until the test is over, and closed.
func Listen(ctx context.Context, cfg Config, port int) (*Proxy, error) {
	p := &Proxy{conns: map[net.Conn]struct{}{}}
	if err := p.connect(cfg); err != nil {
		return nil, err
	}
	cert, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
	if err != nil {
		return nil, err
	}
	l, err := cfg.Machine.Listen(ctx, "tcp", fmt.Sprint(":", port))
	if err != nil {
		return nil, err
	}
	p.server = &http.Server{
		Handler: p, ConnState: p.track, ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
	}
	go func() { _ = p.server.ServeTLS(l, "", "") }() // ends with Close
	return p, nil
}

func (p *Proxy) connect(cfg Config) error {
	text, err := os.ReadFile(cfg.CA)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	target, err := url.Parse(cfg.Server)
	if err != nil {
		return err
	}
	p.upstream = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		FlushInterval: -1, // events are sent as they come
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				return cfg.Machine.Dial(ctx, network, addr)
			},
		},
		// What the server does not answer, the client gets no answer to either.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	return nil
}

// Close ends the server and all connections.
func (p *Proxy) Close() error { return p.server.Close() }

// Set has f happen from now on, instead of what was set before. Watches that
// are open stay so.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// Cut breaks all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// Counts returns what has come so far.
func (p *Proxy) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

func (p *Proxy) track(c net.Conn, state http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch state {
	case http.StateNew:
		p.conns[c] = struct{}{}
	case http.StateClosed, http.StateHijacked:
		delete(p.conns, c)
	}
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	watch := q.Has("watch")
	f := p.count(watch)
	select {
	case <-time.After(f.Delay):
	case <-r.Context().Done():
		return
	}
	switch {
	case f.Status != 0 && (watch || !f.WatchesOnly):
		p.refuse(w, f.Status)
	case f.NoBookmarks && watch && q.Has("sendInitialEvents"):
		p.refuse(w, http.StatusUnprocessableEntity)
	default:
		if f.NoBookmarks && watch {
			q.Del("allowWatchBookmarks")
			r.URL.RawQuery = q.Encode()
		}
		p.upstream.ServeHTTP(w, r)
	}
}

func (p *Proxy) count(watch bool) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if watch {
		p.counts.Watches++
	} else {
		p.counts.Lists++
	}
	return p.fault
}

// reasons are what a client looks at beside the code.
var reasons = map[int]metav1.StatusReason{
	http.StatusGone:                metav1.StatusReasonExpired,
	http.StatusTooManyRequests:     metav1.StatusReasonTooManyRequests,
	http.StatusUnprocessableEntity: metav1.StatusReasonInvalid,
	http.StatusForbidden:           metav1.StatusReasonForbidden,
}

func (p *Proxy) refuse(w http.ResponseWriter, code int) {
	p.mu.Lock()
	p.counts.Refused++
	p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if code == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(code)
	// The client may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reasons[code], Message: http.StatusText(code),
	})
}
