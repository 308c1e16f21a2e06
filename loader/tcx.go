package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
)

// tcxAttachType returns the kernel's name for hook.
func tcxAttachType(hook maps.Hook) ebpf.AttachType {
	if egress(hook) {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

// tcxAnchor returns where among the programs of others ebb runs: first at
// ingress, so that they see a packet as the pod will (DESIGN: the rest of the
// node sees flows client to pod), and last at egress, so that they have seen
// it before the reply gets the service's address back. The order holds at the
// time of attaching; who comes later chooses a place too.
func tcxAnchor(hook maps.Hook) link.Anchor {
	if egress(hook) {
		return link.Tail()
	}
	return link.Head()
}

// attachTCX attaches p by a pinned tcx link. The error wraps
// [ebpf.ErrNotSupported] on kernels before 6.6.
func attachTCX(dev netlink.Link, hook maps.Hook, p *ebpf.Program, dir string) (attachment, error) {
	id, err := programID(p)
	if err != nil {
		return nil, err
	}
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: dev.Attrs().Index,
		Program:   p,
		Attach:    tcxAttachType(hook),
		Anchor:    tcxAnchor(hook),
	})
	if err != nil {
		return nil, err
	}
	return pinLink(l, dir, Attachment{
		Device:    dev.Attrs().Name,
		Ifindex:   dev.Attrs().Index,
		Hook:      hook,
		Mode:      modeTCX,
		ProgramID: uint32(id),
	})
}

// tcxPresent reports whether the device lists the link among its programs.
func tcxPresent(ifindex int, hook maps.Hook, id link.ID) (bool, error) {
	res, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: tcxAttachType(hook)})
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("list tcx programs of device %d: %w", ifindex, err)
	}
	for _, p := range res.Programs {
		if linkID, ok := p.LinkID(); ok && linkID == id {
			return true, nil
		}
	}
	return false, nil
}
