package responder

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// handOver sends everything to a successor and waits until it serves. From then
// on both accept connections, and both answer the same: no Update is taken in
// between. The caller closes the Server if there is no error.
func (s *Server) handOver(to *net.UnixConn) error {
	s.telling.Lock()
	defer s.telling.Unlock()
	h, listeners := s.handover()
	if err := writeFrame(to, h); err != nil {
		return err
	}
	for _, l := range listeners {
		if err := sendSocket(to, l); err != nil {
			return err
		}
	}
	return readFrame(to, &done{})
}

func (s *Server) handover() (handover, []*net.TCPListener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := handover{Update: s.update, Age: time.Since(s.viewed), Answers: s.counts()}
	var listeners []*net.TCPListener
	for k, l := range s.sockets {
		h.Keys = append(h.Keys, k)
		listeners = append(listeners, l.listener)
	}
	return h, listeners
}

// takeOver receives what handOver sends, and serves it. The caller says done
// once it can be found.
func (s *Server) takeOver(from *net.UnixConn) error {
	var h handover
	if err := readFrame(from, &h); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.update, s.viewed = h.Update, time.Now().Add(-h.Age)
	for _, a := range h.Answers {
		s.answers[Answers{Probe: a.Probe, Code: a.Code}] = a.Count
	}
	for _, k := range h.Keys {
		l, err := receiveSocket(from)
		if err != nil {
			return err
		}
		addr, err := k.addrPort()
		if err != nil {
			return errors.Join(err, l.Close())
		}
		s.serve(k, addr, l)
	}
	return nil
}

// addrPort is that of a service's socket; the node's may have a name.
func (k key) addrPort() (netip.AddrPort, error) {
	if k == (key{Addr: k.Addr}) {
		return netip.AddrPort{}, nil
	}
	addr, err := netip.ParseAddrPort(k.Addr)
	if err != nil {
		return addr, fmt.Errorf("take over %s: %w", k.Service, err)
	}
	return addr, nil
}
