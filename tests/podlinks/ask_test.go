package podlinks

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/content"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// askTimeout bounds one question; a busy machine is slow.
const askTimeout = 5 * time.Second

// get asks from inside ns and returns the body of an answer with status 200.
func (w *world) get(ns *lab.NS, url string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	return suite.Get(ctx, ns, url)
}

// ask asks the HTTP port of a service at addr.
func (w *world) ask(ns *lab.NS, addr netip.Addr, path string) (string, error) {
	return w.get(ns, "http://"+netip.AddrPortFrom(addr, httpPort).String()+path)
}

// askPeer returns the address at which the backend sees who asks from ns.
func (w *world) askPeer(ns *lab.NS, addr netip.Addr) (netip.Addr, error) {
	body, err := w.ask(ns, addr, "/peer")
	if err != nil {
		return netip.Addr{}, err
	}
	peer, err := netip.ParseAddrPort(body)
	return peer.Addr().Unmap(), err
}

// askStream has the service send n bytes and compares them.
func (w *world) askStream(ns *lab.NS, addr netip.Addr, n int64) error {
	const seed = 7
	body, err := w.ask(ns, addr, fmt.Sprintf("/stream?bytes=%d&seed=%d", n, seed))
	if err != nil {
		return err
	}
	got, err := io.Copy(content.NewVerifier(seed), bytes.NewReader([]byte(body)))
	if err == nil && got != n {
		err = fmt.Errorf("%d bytes, want %d", got, n)
	}
	return err
}

// askUDP sends datagrams from one connected socket, which takes answers from
// addr only, and returns who has answered.
func (w *world) askUDP(ns *lab.NS, addr netip.Addr, n int) (string, error) {
	ctx, cancel := context.WithTimeout(w.Context(), askTimeout)
	defer cancel()
	conn, err := ns.Dial(ctx, "udp", netip.AddrPortFrom(addr, echoPort).String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(askTimeout)); err != nil {
		return "", err
	}
	buf := make([]byte, 2000)
	name := ""
	for i := range n {
		// The longer one fits into no IPv6 packet of the smallest allowed size.
		question := fmt.Sprintf("%d:%s", i, strings.Repeat("x", 1300*(i%2)))
		if _, err := conn.Write([]byte(question)); err != nil {
			return "", err
		}
		k, err := conn.Read(buf)
		if err != nil {
			return "", err
		}
		who, ok := strings.CutPrefix(string(buf[:k]), question+" ")
		if !ok || name != "" && who != name {
			return "", fmt.Errorf("datagram %d: answer %.40q after one of %q", i, buf[:k], name)
		}
		name = who
	}
	return name, nil
}
