package maps

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
)

// SocketWay says what the two addresses of an entry are (enum socket_way in
// bpf/abi/types.h).
type SocketWay uint8

// The ways of an entry.
const (
	SocketDialled SocketWay = 0 // from what the program dialled to its backend
	SocketBackend SocketWay = 1 // from the backend to what the program dialled
)

// SocketKey is a socket and an address it talks to, or believes to talk to.
type SocketKey struct {
	// Cookie is the kernel's name of the socket (SO_COOKIE).
	Cookie uint64
	Addr   netip.AddrPort
	Proto  Proto
	Way    SocketWay
}

// String formats k as "UDP 10.0.0.1:53 of socket 7".
func (k SocketKey) String() string {
	return fmt.Sprintf("%s %s of socket %d", k.Proto, k.Addr, k.Cookie)
}

// SocketPeer is the other address of an entry, and the backend it is about.
type SocketPeer struct {
	Addr       netip.AddrPort
	Backend    BackendID
	Generation uint32
	// Seen is the tick (see Clock) of the last look.
	Seen uint32
	// Netns is the cookie of the socket's network namespace.
	Netns uint64
}

// Sockets is access to the map sockets. The datapath writes it, and evicts the
// entry least recently used when it is full.
type Sockets struct{ m *ebpf.Map }

// Each calls fn for every entry, in no order, until fn returns false.
func (a Sockets) Each(fn func(SocketKey, SocketPeer) bool) error {
	err := each(a.m, func(k *bpf.LayoutSocketKey, v *bpf.LayoutSocketPeer) bool {
		return fn(fromSocketKey(k), fromSocketPeer(v))
	})
	if err != nil {
		return fmt.Errorf("read sockets: %w", err)
	}
	return nil
}

// Put inserts or replaces an entry, for tests: they belong to the datapath.
func (a Sockets) Put(k SocketKey, v SocketPeer) error {
	if err := errors.Join(checkAddr(k.Addr.Addr()), checkAddr(v.Addr.Addr())); err != nil {
		return fmt.Errorf("put %s: %w", k, err)
	}
	key, value := toSocketKey(k), toSocketPeer(v)
	if err := a.m.Put(&key, &value); err != nil {
		return fmt.Errorf("put %s: %w", k, fullError(err))
	}
	return nil
}

// Delete removes the entry of k. An absent entry is not an error.
func (a Sockets) Delete(k SocketKey) error {
	if checkAddr(k.Addr.Addr()) != nil {
		return nil // cannot be in the map, and must not be taken for what is
	}
	key := toSocketKey(k)
	if err := a.m.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete %s: %w", k, err)
	}
	return nil
}
