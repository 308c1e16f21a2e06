package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/ebb-lb/ebb/tests/lab/content"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

// maxAnswer bounds what is read of a small answer, in bytes.
const maxAnswer = 1 << 10

// connectOnce opens a connection, asks one question and waits until the pod
// has closed the connection.
func (r *Runner) connectOnce(ctx context.Context, target string) {
	a := r.act.Load()
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, r.cfg.RequestTimeout)
	defer cancel()
	name, err := ask(ctx, target, strconv.FormatUint(r.id(), 10))
	r.book.add(a.tally, outcome{kind: TCP, target: target, pod: name, took: time.Since(began), err: err})
}

// ask sends text and verifies that it comes back. It returns the pod's name,
// as far as it is known.
func ask(ctx context.Context, target, text string) (string, error) {
	conn, err := dial(ctx, target)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	resp, err := get(conn, in, "/echo/"+text)
	if err != nil {
		return "", err
	}
	name := resp.Header.Get(pod.Header)
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return name, fmt.Errorf("read answer: %w", err)
	}
	if string(body) != text {
		return name, fmt.Errorf("wrong answer %.40q to %q", body, text)
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		return name, fmt.Errorf("after the answer: want the end, got %v", err)
	}
	return name, nil
}

// dial connects. The connection breaks when ctx ends.
func dial(ctx context.Context, target string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", target)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return conn, nil
}

func get(conn net.Conn, in *bufio.Reader, path string) (*http.Response, error) {
	_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n", path)
	if err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answer has status %s", resp.Status)
	}
	return resp, nil
}

// transfer runs one transfer, as long as the act wants, and reports whether it
// was complete and right.
func (r *Runner) transfer(ctx context.Context, target string) bool {
	a := r.act.Load()
	began := time.Now()
	size := int64(a.transferTime(began).Seconds() * float64(r.cfg.Rate))
	name, err := r.receive(ctx, target, size)
	if ctx.Err() != nil {
		return false // given up by us
	}
	r.book.add(a.tally, outcome{kind: Transfer, target: target, pod: name, took: time.Since(began), err: err})
	return err == nil
}

func (r *Runner) receive(ctx context.Context, target string, size int64) (string, error) {
	connecting, cancel := context.WithTimeout(ctx, r.cfg.RequestTimeout)
	defer cancel()
	conn, err := dial(connecting, target)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	patient := &patientConn{Conn: conn, patience: r.cfg.StallTimeout}
	seed := r.id()
	resp, err := get(patient, bufio.NewReader(patient), fmt.Sprintf("/stream?bytes=%d&seed=%d&rate=%d", size, seed, r.cfg.Rate))
	if err != nil {
		return "", err
	}
	name := resp.Header.Get(pod.Header)
	v := content.NewVerifier(seed)
	n, err := io.Copy(v, resp.Body)
	if err != nil {
		return name, fmt.Errorf("after %d of %d bytes: %w", n, size, err)
	}
	if n != size {
		return name, fmt.Errorf("transfer of %d bytes ended after %d", size, n)
	}
	return name, nil
}

// patientConn gives up when a single read or write takes longer than patience.
type patientConn struct {
	net.Conn
	patience time.Duration
}

func (c *patientConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.patience)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *patientConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.patience)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
