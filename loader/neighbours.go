package loader

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
)

// Neighbour is an entry of the kernel's neighbour tables.
type Neighbour struct {
	maps.NextHop
	// MAC is where frames to it go, as text; empty if that is not known.
	MAC string
	// Valid: frames are sent to MAC.
	Valid bool
	// Stale: MAC was confirmed so long ago that the kernel would check it again if a
	// packet were sent by the neighbour code.
	Stale bool
	// Foreign: somebody else keeps the entry (static, learned or managed).
	Foreign bool
}

const (
	// What the kernel takes for valid (NUD_VALID in include/net/neighbour.h).
	nudValid = unix.NUD_PERMANENT | unix.NUD_NOARP | unix.NUD_REACHABLE | unix.NUD_PROBE | unix.NUD_STALE | unix.NUD_DELAY
	// What it does not check.
	nudFixed = unix.NUD_PERMANENT | unix.NUD_NOARP
)

// parseNeighbour reads a message without its header. False: it is not about a
// neighbour of IPv4 or IPv6.
func parseNeighbour(msg []byte) (Neighbour, bool) {
	if len(msg) < unix.SizeofNdMsg {
		return Neighbour{}, false
	}
	n, err := netlink.NeighDeserialize(msg)
	if err != nil {
		return Neighbour{}, false
	}
	return toNeighbour(n)
}

func toNeighbour(n *netlink.Neigh) (Neighbour, bool) {
	addr, ok := netip.AddrFromSlice(n.IP)
	if !ok || n.Family != unix.AF_INET && n.Family != unix.AF_INET6 || n.Flags&netlink.NTF_PROXY != 0 {
		return Neighbour{}, false
	}
	out := Neighbour{
		NextHop: maps.NextHop{Ifindex: uint32(n.LinkIndex), Addr: addr.Unmap()},
		Valid:   n.State&nudValid != 0,
		Stale:   n.State&unix.NUD_STALE != 0,
		Foreign: n.State&nudFixed != 0 || n.Flags&netlink.NTF_EXT_LEARNED != 0 || n.FlagsExt&netlink.NTF_EXT_MANAGED != 0,
	}
	if !bytes.Equal(n.HardwareAddr, make(net.HardwareAddr, len(n.HardwareAddr))) {
		out.MAC = n.HardwareAddr.String()
	}
	return out, true
}

// Neighbours returns the neighbours of the caller's network namespace.
func Neighbours() ([]Neighbour, error) {
	all, err := dump(func() ([]netlink.Neigh, error) { return netlink.NeighList(0, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	var out []Neighbour
	for i := range all {
		if n, ok := toNeighbour(&all[i]); ok {
			out = append(out, n)
		}
	}
	return out, nil
}

// UseNeighbour makes the kernel treat the neighbour as if a packet were sent to it:
// one whose address was not confirmed lately is asked for it. A neighbour that is
// not in the table is not an error, and does not get there.
//
// It must not be a foreign one (see Neighbour): the request would take its flags
// and its permanence away.
func UseNeighbour(h maps.NextHop) error {
	family := unix.AF_INET
	if h.Addr.Is6() {
		family = unix.AF_INET6
	}
	req := nl.NewNetlinkRequest(unix.RTM_NEWNEIGH, unix.NLM_F_ACK)
	req.AddData(&netlink.Ndmsg{Family: uint8(family), Index: h.Ifindex, Flags: netlink.NTF_USE})
	req.AddData(nl.NewRtAttr(netlink.NDA_DST, h.Addr.AsSlice()))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("use neighbour %s: %w", h, err)
	}
	return nil
}
