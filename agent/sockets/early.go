package sockets

import (
	"errors"
	"net/netip"

	"github.com/ebb-lb/ebb/loader/sockdiag"
	"github.com/ebb-lb/ebb/maps"
)

// Reach tells whose sockets are given backends when they connect.
type Reach struct {
	// Host is the cookie of the node's network namespace.
	Host uint64
	// PodsByPacket: those in other namespaces are left alone.
	PodsByPacket bool
	// Attached reports whether the programs run that give them.
	Attached func() bool
	// Groups returns the control groups whose sockets they see; nil: all.
	Groups func() (map[uint64]bool, error)
}

// earlyAgain is how often sockets are looked through again after a frontend has come:
// for as long as a SYN takes to be sent again, which is a second.
const earlyAgain = 3

// view is what the maps say at a time.
type view struct {
	frontends map[maps.Frontend]maps.Service
	addresses map[netip.Addr]maps.AddressFlags
	// backends are their addresses, also of those that are gone.
	backends map[netip.AddrPort]bool
}

// Early reports whether s, a socket in the namespace netns, connected to a frontend
// too early: today it would be given a backend instead. Nothing it sends is ever
// translated, so it must connect again.
//
// It is not early if it is connected to a backend that has the address of a
// frontend; if sockets in that namespace leave the frontend alone; and at addresses
// of the node, as node ports are, where a server of the node may have answered
// before, and where the node itself answers that nobody is there. Connections of TCP
// stay unless their SYN was sent again: one that was answered was so by whoever
// balanced before, and packets of it are still translated there.
func (r Reach) Early(s sockdiag.Socket, proto maps.Proto, netns uint64, v view) bool {
	fe, ok := v.frontends[maps.Frontend{Addr: s.Peer.Addr(), Port: s.Peer.Port(), Proto: proto}]
	if !ok || fe.NodePort || v.backends[s.Peer] {
		return false
	}
	if whose := v.addresses[s.Peer.Addr()]; whose&maps.NodeAddress != 0 && whose&maps.AddressClusterIP == 0 {
		return false
	}
	if netns != r.Host && (r.PodsByPacket || fe.Packet || fe.Restricted && !fe.PodsIn) {
		return false
	}
	return proto == maps.UDP || proto == maps.TCP && s.Retransmits > 0
}

// read returns what the maps say now.
func (c *Closer) read() (v view, err error) {
	if v.frontends, err = c.set.Frontends().All(); err != nil {
		return v, err
	}
	if v.addresses, err = c.set.Addresses(maps.ServiceAddress | maps.NodeAddress).All(); err != nil {
		return v, err
	}
	backends, err := c.set.Backends().All()
	v.backends = make(map[netip.AddrPort]bool, len(backends))
	for _, b := range backends {
		v.backends[b.Addr] = true
	}
	return v, err
}

// CloseEarly closes sockets that connected to a frontend too early, and returns how
// many. It looks for them if a frontend was not there, or left alone, at the call
// before, and in the calls that follow: one may have been about to connect, or its SYN
// was not sent again yet. more says that it is to be called again, a little later. An
// error concerns some sockets.
func (c *Closer) CloseEarly() (closed int, more bool, err error) {
	if c.reach == nil {
		return 0, false, nil
	}
	if !c.reach.Attached() {
		return 0, true, nil
	}
	v, err := c.read()
	if err != nil {
		return 0, true, err
	}
	if anyNew(c.looked, v.frontends) {
		c.looks = 1 + earlyAgain
	}
	c.looked = v.frontends
	if c.looks == 0 {
		return 0, false, nil
	}
	groups, err := c.reach.Groups()
	if err != nil {
		return 0, true, err
	}
	c.looks--
	err = sockdiag.VisitAll(func(netns uint64) error {
		n, err := c.closeEarlyIn(netns, groups, v)
		closed += n
		return err
	})
	return closed, c.looks > 0, err
}

// anyNew reports whether a frontend is in now that sockets were not given backends
// of before.
func anyNew(before, now map[maps.Frontend]maps.Service) bool {
	for f, fe := range now {
		had, ok := before[f]
		if !ok || had.Packet && !fe.Packet || had.Restricted && !fe.Restricted || !had.PodsIn && fe.PodsIn {
			return true
		}
	}
	return false
}

// closeEarlyIn works in the namespace of the calling thread.
func (c *Closer) closeEarlyIn(netns uint64, groups map[uint64]bool, v view) (closed int, err error) {
	var errs []error
	for _, proto := range []maps.Proto{maps.UDP, maps.TCP} {
		sockets, err := sockdiag.ListWaiting(proto)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, s := range sockets {
			if groups != nil && !groups[s.Cgroup] || !c.reach.Early(s, proto, netns, v) {
				continue
			}
			err := sockdiag.Destroy(s)
			if errors.Is(err, sockdiag.ErrNotFound) {
				continue // it is gone, or the next look finds it
			}
			if err == nil {
				closed++
			}
			errs = append(errs, err)
		}
	}
	return closed, errors.Join(errs...)
}
