package loader

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"

	"github.com/ebb-lb/ebb/maps"
)

// xdpFlags returns what the kernel calls mode. Without a flag it would silently
// choose generic where native is refused.
func xdpFlags(mode string) link.XDPAttachFlags {
	if mode == modeGeneric {
		return link.XDPGenericMode
	}
	return link.XDPDriverMode
}

// attachXDP attaches p by a pinned XDP link. XDP programs of others are never
// replaced: a device has room for one.
func attachXDP(dev netlink.Link, mode string, p *ebpf.Program, dir string) (attachment, error) {
	id, err := programID(p)
	if err != nil {
		return nil, err
	}
	l, err := link.AttachXDP(link.XDPOptions{
		Program:   p,
		Interface: dev.Attrs().Index,
		Flags:     xdpFlags(mode),
	})
	if err != nil {
		return nil, err
	}
	return pinLink(l, dir, Attachment{
		Device:    dev.Attrs().Name,
		Ifindex:   dev.Attrs().Index,
		Hook:      maps.HookXDP,
		Mode:      mode,
		ProgramID: uint32(id),
	})
}

// xdpPresent reports whether the device says it runs the program. A device with
// programs in hardware and driver names neither of them; it is taken at its word.
func xdpPresent(ifindex int, id ebpf.ProgramID) (bool, error) {
	dev, err := deviceByIndex(ifindex)
	if dev == nil || err != nil {
		return false, err
	}
	xdp := dev.Attrs().Xdp
	if xdp == nil || !xdp.Attached {
		return false, nil
	}
	return xdp.ProgId == 0 || xdp.ProgId == uint32(id), nil
}

// xdpModeOf returns the mode XDP has on a device.
func xdpModeOf(ifindex int) (string, error) {
	dev, err := deviceByIndex(ifindex)
	if err != nil {
		return "", err
	}
	if dev != nil && dev.Attrs().Xdp != nil && dev.Attrs().Xdp.AttachMode == nl.XDP_ATTACHED_SKB {
		return modeGeneric, nil
	}
	return modeNative, nil
}
