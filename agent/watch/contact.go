package watch

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// Contact is when a source last heard from where its state comes from: the API
// server answered or sent an event (while nothing happens it sends a bookmark
// about once a minute), or the directory was found in order. It is safe for
// concurrent use; a nil Contact notes nothing.
type Contact struct {
	// Now is the clock, usually time.Now.
	Now  func() time.Time
	last atomic.Pointer[time.Time]
}

// Last returns when that was; zero if it has not been yet.
func (c *Contact) Last() time.Time {
	if t := c.last.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

func (c *Contact) made() {
	if c == nil {
		return
	}
	now := c.Now()
	c.last.Store(&now)
}

// overHTTP returns next with all that arrives noted.
func (c *Contact) overHTTP(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err == nil && resp.StatusCode/100 == 2 {
			c.made()
			resp.Body = &heard{ReadCloser: resp.Body, contact: c}
		}
		return resp, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// heard is the body of an answer, which goes on as long as a watch does.
type heard struct {
	io.ReadCloser
	contact *Contact
}

// Read implements io.Reader.
func (h *heard) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	if n > 0 {
		h.contact.made()
	}
	return n, err
}
