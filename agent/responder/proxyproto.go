package responder

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"sync"
)

// A balancer that is told to send the PROXY protocol to a service often sends it
// to the health port too. Whom it speaks for does not matter to a probe: the
// header is skipped.

const (
	v1Prefix = "PROXY "
	v1Most   = 107 // bytes, with the line's end
	v2Prefix = "\r\n\r\n\x00\r\nQUIT\n"
	v2Fixed  = 16 // bytes, before as many as the last two say
)

var errProxyHeader = errors.New("PROXY protocol header without an end")

// proxyListener accepts connections that may begin with a PROXY header.
type proxyListener struct{ net.Listener }

func (l *proxyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &proxyConn{Conn: c, in: bufio.NewReaderSize(c, 4<<10)}, nil
}

// proxyConn skips the header with the first Read, which has a deadline.
type proxyConn struct {
	net.Conn
	in   *bufio.Reader
	once sync.Once
	err  error
}

func (c *proxyConn) Read(p []byte) (int, error) {
	c.once.Do(func() { c.err = skipProxyHeader(c.in) })
	if c.err != nil {
		return 0, c.err
	}
	return c.in.Read(p)
}

// skipProxyHeader reads a header of version 1 or 2 if there is one. It waits for
// no more bytes than those that may still be one.
func skipProxyHeader(in *bufio.Reader) error {
	switch {
	case startsWith(in, v1Prefix):
		return skipV1(in)
	case startsWith(in, v2Prefix):
		return skipV2(in)
	}
	return nil
}

// startsWith compares byte by byte, for the next one may never come. An error
// comes again with the next read.
func startsWith(in *bufio.Reader, prefix string) bool {
	for i := range len(prefix) {
		have, err := in.Peek(i + 1)
		if err != nil || have[i] != prefix[i] {
			return false
		}
	}
	return true
}

func skipV1(in *bufio.Reader) error {
	var line []byte
	for len(line) < v1Most {
		b, err := in.ReadByte()
		if err != nil {
			return err
		}
		if line = append(line, b); bytes.HasSuffix(line, []byte("\r\n")) {
			return nil
		}
	}
	return errProxyHeader
}

func skipV2(in *bufio.Reader) error {
	fixed, err := in.Peek(v2Fixed)
	if err != nil {
		return err
	}
	_, err = in.Discard(v2Fixed + int(binary.BigEndian.Uint16(fixed[v2Fixed-2:])))
	return err
}
