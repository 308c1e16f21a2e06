package topology

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/ebb-lb/ebb/tests/lab/content"
)

// transfer is one connection by which data comes, at a steady rate, as long as
// the test wants.
type transfer struct {
	w     *world
	conn  net.Conn
	bytes atomic.Int64 // received, and right
	ended chan error
}

const (
	transferRate = 50_000    // bytes per second
	transferSize = 500 << 20 // bytes; never reached
)

// startTransfer begins a transfer from the service at target.
func (w *world) startTransfer(target string) *transfer {
	w.Helper()
	const seed = 1
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	conn, err := w.lab.Client.Dial(ctx, "tcp", target)
	if err != nil {
		w.Fatal(err)
	}
	tr := &transfer{w: w, conn: conn, ended: make(chan error, 1)}
	client := http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}}
	resp, err := client.Get(fmt.Sprintf("http://%s/stream?bytes=%d&seed=%d&rate=%d", target, transferSize, seed, transferRate))
	if err != nil {
		w.Fatal(err)
	}
	go func() {
		defer resp.Body.Close()
		_, err := io.Copy(io.MultiWriter(content.NewVerifier(seed), tr), resp.Body)
		tr.ended <- err
	}()
	w.Cleanup(func() { conn.Close() })
	return tr
}

// Write counts what the verifier before it has accepted.
func (tr *transfer) Write(p []byte) (int, error) {
	tr.bytes.Add(int64(len(p)))
	return len(p), nil
}

// awaitMore waits until the transfer has got further.
func (tr *transfer) awaitMore() {
	tr.w.Helper()
	const more = transferRate / 10
	before := tr.bytes.Load()
	tr.w.poll("a transfer to go on", func() bool {
		select {
		case err := <-tr.ended:
			tr.w.Fatalf("transfer ended after %d bytes: %v", tr.bytes.Load(), err)
		default:
		}
		return tr.bytes.Load() >= before+more
	})
}

// finish ends the transfer, which must not have ended by itself.
func (tr *transfer) finish() {
	tr.w.Helper()
	tr.awaitMore()
	if err := tr.conn.Close(); err != nil {
		tr.w.Error(err)
	}
	if err := <-tr.ended; !errors.Is(err, net.ErrClosed) {
		tr.w.Errorf("transfer ended after %d bytes: %v", tr.bytes.Load(), err)
	}
}
