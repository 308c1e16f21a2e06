package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/ebb-lb/ebb/maps"
)

// bpfLink is an attachment by a pinned bpf_link: tcx or XDP.
type bpfLink struct {
	link link.Link
	dir  string
	what Attachment
}

// linkPrefix returns the first part of the names of pinned links.
func linkPrefix(hook maps.Hook) string {
	if hook == maps.HookXDP {
		return "xdp-"
	}
	return "tcx-" + strings.TrimPrefix(hook.String(), "tc-") + "-"
}

// linkName returns the name a link is pinned by.
func linkName(hook maps.Hook, device string) string {
	return linkPrefix(hook) + strings.ReplaceAll(device, ".", ":")
}

// parseLinkName is the inverse of linkName.
func parseLinkName(name string) (maps.Hook, string, bool) {
	for hook := range maps.HookCount {
		if device, ok := strings.CutPrefix(name, linkPrefix(hook)); ok {
			return hook, strings.ReplaceAll(device, ":", "."), true
		}
	}
	return 0, "", false
}

// pinLink makes the fresh link l outlive the process. It owns l.
func pinLink(l link.Link, dir string, what Attachment) (*bpfLink, error) {
	b := &bpfLink{link: l, dir: dir, what: what}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, errors.Join(fmt.Errorf("create pin directory: %w", err), l.Close())
	}
	if err := b.rename(what.Device); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return b, nil
}

func (b *bpfLink) describe() Attachment { return b.what }

// program trusts neither the pin nor the link alone: the device must list it.
func (b *bpfLink) program() (ebpf.ProgramID, bool, error) {
	info, err := b.link.Info()
	if err != nil {
		return 0, false, err
	}
	if linkIfindex(info, b.what.Hook) != b.what.Ifindex {
		return 0, false, nil // the device is gone: the kernel has cut the link
	}
	var present bool
	if b.what.Hook == maps.HookXDP {
		present, err = xdpPresent(b.what.Ifindex, info.Program)
	} else {
		present, err = tcxPresent(b.what.Ifindex, b.what.Hook, info.ID)
	}
	return info.Program, present, err
}

func (b *bpfLink) replace(p *ebpf.Program) error {
	id, err := programID(p)
	if err != nil {
		return err
	}
	if err := b.link.Update(p); err != nil {
		return err
	}
	b.what.ProgramID = uint32(id)
	return nil
}

func (b *bpfLink) rename(device string) error {
	path := filepath.Join(b.dir, linkName(b.what.Hook, device))
	if err := b.link.Pin(path); err != nil {
		return fmt.Errorf("pin link %s: %w", path, err)
	}
	b.what.Device = device
	return nil
}

func (b *bpfLink) detach() error {
	// Others may hold the link too, so removing the pin is not enough.
	if err := b.link.Detach(); err != nil && !errors.Is(err, link.ErrNotSupported) {
		return err
	}
	return b.link.Unpin()
}

func (b *bpfLink) close() error { return b.link.Close() }

// linkIfindex returns the device a link for hook is on; 0 if it is on none or is
// a link of another kind.
func linkIfindex(info *link.Info, hook maps.Hook) int {
	if hook == maps.HookXDP {
		if xdp := info.XDP(); xdp != nil {
			return int(xdp.Ifindex)
		}
		return 0
	}
	if tcx := info.TCX(); tcx != nil && ebpf.AttachType(tcx.AttachType) == tcxAttachType(hook) {
		return int(tcx.Ifindex)
	}
	return 0
}

// deviceByIndex returns the device, or nil if there is none.
func deviceByIndex(ifindex int) (netlink.Link, error) {
	dev, err := netlink.LinkByIndex(ifindex)
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up device %d: %w", ifindex, err)
	}
	return dev, nil
}
