package suite

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/ebb-lb/ebb/tests/lab"
)

// HTTPClient returns one that makes a connection for each request, from inside ns.
// It has no timeout.
func HTTPClient(ns *lab.NS) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return ns.Dial(ctx, network, addr)
		},
	}}
}

// Get asks from inside ns and returns the body of an answer with status 200.
func Get(ctx context.Context, ns *lab.NS, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := HTTPClient(ns).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %s: %s", url, resp.Status, body)
	}
	return string(body), err
}
