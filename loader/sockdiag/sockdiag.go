// Package sockdiag lists and closes sockets of other processes, in whatever
// network namespace of this machine they are. It deliberately knows nothing
// about why one is to be closed.
package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
)

// Sizes and places in struct inet_diag_msg and struct inet_diag_req_v2 of
// linux/inet_diag.h. Both have the socket's id in them.
const (
	messageID      = 4
	messageSize    = 72 // attributes follow
	messageRetrans = 3
	requestID      = 8
	idSize         = 48
	// In the id:
	peerPort = 2
	peerAddr = 20
	idCookie = 40
)

// States of sockets as bits of a request (include/net/tcp_states.h). UDP has two
// of them: 1 is connected, 7 is not.
const (
	established = 1 << 1
	synSent     = 1 << 2
	timeWait    = 1 << 6
	listening   = 1 << 10
	allStates   = 1<<13 - 2
	connections = allStates &^ (timeWait | listening)
)

// ErrNotFound is that a socket is gone, has another peer meanwhile, or that
// another one with the same addresses is in front of it.
var ErrNotFound = errors.New("no such socket")

// Socket is one socket as its program has it: with a v4-mapped address it is IPv4
// here, whatever its family.
type Socket struct {
	// Cookie is the kernel's name of the socket (SO_COOKIE).
	Cookie uint64
	// Peer is what it is connected to; port 0: it is not.
	Peer netip.AddrPort
	// Cgroup is the number of the control group it was made in; 0: not told.
	Cgroup uint64
	// Retransmits is how often the packet that is waited for was sent again (TCP).
	Retransmits uint8

	proto  maps.Proto
	family uint8
	id     [idSize]byte // by which the kernel finds it again
}

// request is a struct inet_diag_req_v2.
type request []byte

// Len and Serialize make a request part of a netlink message.
func (r request) Len() int          { return len(r) }
func (r request) Serialize() []byte { return r }

func newRequest(family uint8, proto maps.Proto, states uint32, id []byte) request {
	r := make(request, requestID+idSize)
	r[0], r[1] = family, uint8(proto)
	binary.NativeEndian.PutUint32(r[4:], states)
	copy(r[requestID:], id)
	return r
}

// List returns the sockets of TCP or UDP in the namespace of the calling thread,
// without those of TCP that only listen or wait for time to pass. One that comes or
// goes meanwhile may hide another.
func List(proto maps.Proto) ([]Socket, error) {
	if proto == maps.TCP {
		return listStates(proto, connections)
	}
	return listStates(proto, allStates)
}

// ListWaiting is List of those that may never be answered: connected sockets of
// UDP, those of TCP whose SYN was not answered yet.
func ListWaiting(proto maps.Proto) ([]Socket, error) {
	if proto == maps.TCP {
		return listStates(proto, synSent)
	}
	return listStates(proto, established)
}

func listStates(proto maps.Proto, states uint32) ([]Socket, error) {
	var all []Socket
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		some, err := list(family, proto, states)
		if err != nil {
			return nil, fmt.Errorf("list sockets of %s: %w", proto, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

func list(family uint8, proto maps.Proto, states uint32) ([]Socket, error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddData(newRequest(family, proto, states, nil))
	messages, err := req.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return nil, err
	}
	all := make([]Socket, 0, len(messages))
	for _, m := range messages {
		s, err := parse(m, proto)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// parse reads a struct inet_diag_msg.
func parse(m []byte, proto maps.Proto) (Socket, error) {
	if len(m) < messageSize {
		return Socket{}, fmt.Errorf("a message of %d bytes, less than %d", len(m), messageSize)
	}
	s := Socket{proto: proto, family: m[0], Retransmits: m[messageRetrans], id: [idSize]byte(m[messageID:])}
	attrs, err := nl.ParseRouteAttr(m[messageSize:])
	if err != nil {
		return Socket{}, fmt.Errorf("attributes of a socket: %w", err)
	}
	for _, a := range attrs {
		if a.Attr.Type == netlink.INET_DIAG_CGROUP_ID && len(a.Value) >= 8 {
			s.Cgroup = binary.NativeEndian.Uint64(a.Value)
		}
	}
	s.Cookie = cookie(s.id[idCookie:])
	addr := netip.AddrFrom16([16]byte(s.id[peerAddr:])).Unmap()
	if s.family == unix.AF_INET {
		addr = netip.AddrFrom4([4]byte(s.id[peerAddr:]))
	}
	s.Peer = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(s.id[peerPort:]))
	return s, nil
}

// cookie is two words in the byte order of the machine, the low one first.
func cookie(b []byte) uint64 {
	return uint64(binary.NativeEndian.Uint32(b)) | uint64(binary.NativeEndian.Uint32(b[4:]))<<32
}

// Destroy closes s as if its network had failed: its program sees ECONNABORTED, the
// peer of a TCP connection a RST. It must be called in the namespace s was listed
// in.
func Destroy(s Socket) error {
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.AddData(newRequest(s.family, s.proto, 0, s.id[:]))
	_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	if errors.Is(err, unix.ENOENT) {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("close socket %d, %s to %s: %w", s.Cookie, s.proto, s.Peer, err)
	}
	return nil
}
