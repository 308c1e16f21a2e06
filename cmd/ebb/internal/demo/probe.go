package demo

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
)

const (
	probeEvery   = 25 * time.Millisecond
	probeTimeout = 5 * time.Second
)

// awaitOK asks url from inside ns until the answer is 200. It gives up when
// ctx ends, or when c does, and then says what the last answer was.
func awaitOK(ctx context.Context, ns *lab.NS, url string, c *child) error {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return ns.Dial(ctx, network, addr)
		},
	}
	client := &http.Client{Transport: transport, Timeout: probeTimeout}
	for {
		err := getOK(ctx, client, url)
		if err == nil {
			return nil
		}
		wait := time.NewTimer(probeEvery)
		select {
		case <-wait.C:
		case <-c.Done():
			wait.Stop()
			return c.ended()
		case <-ctx.Done():
			wait.Stop()
			return fmt.Errorf("%s is not ready: %w: last probe: %w%s", c.name, context.Cause(ctx), err, c.log)
		}
	}
}

func getOK(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %s", url, resp.Status)
	}
	return nil
}
