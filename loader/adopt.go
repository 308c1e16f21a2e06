package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf/link"

	"github.com/ebb-lb/ebb/maps"
)

// adopt takes over, once, what an earlier agent left attached.
func (a *Attacher) adopt() error {
	if a.adopted {
		return nil
	}
	if err := a.adoptLinks(); err != nil {
		return errors.Join(fmt.Errorf("take over pinned links: %w", err), a.forget())
	}
	if err := a.adoptFilters(); err != nil {
		return errors.Join(fmt.Errorf("take over filters: %w", err), a.forget())
	}
	a.adopted = true
	return nil
}

// forget releases what is attached without detaching it.
func (a *Attacher) forget() error {
	var errs []error
	for s, at := range a.attached {
		errs = append(errs, at.close())
		delete(a.attached, s)
	}
	a.adopted = false
	return errors.Join(errs...)
}

func (a *Attacher) adoptLinks() error {
	entries, err := os.ReadDir(a.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), socketPrefix) {
			continue
		}
		hook, device, ok := parseLinkName(e.Name())
		if !ok {
			a.log.Warn("ignored a pin that is not ebb's", "pin", e.Name())
			continue
		}
		if !slices.Contains(a.hooks, hook) {
			continue // another Attacher's
		}
		if err := a.adoptLink(hook, device, filepath.Join(a.dir, e.Name())); err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	return nil
}

// adoptLink takes over one pinned link, or removes its pin if the link is on no
// device any more.
func (a *Attacher) adoptLink(hook maps.Hook, device, path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return err
	}
	b := &bpfLink{link: l, dir: a.dir, what: Attachment{Device: device, Hook: hook, Mode: modeTCX}}
	info, err := l.Info()
	if err == nil {
		b.what.Ifindex = linkIfindex(info, hook)
		b.what.ProgramID = uint32(info.Program)
	}
	s := spot{b.what.Ifindex, hook}
	if _, taken := a.attached[s]; s.ifindex == 0 || taken {
		a.note("removed a stale link", "pin", filepath.Base(path))
		return errors.Join(b.detach(), b.close())
	}
	if hook == maps.HookXDP {
		if b.what.Mode, err = xdpModeOf(s.ifindex); err != nil {
			return errors.Join(err, b.close())
		}
	}
	a.attached[s] = b
	return nil
}

func (a *Attacher) adoptFilters() error {
	devices, err := clsactDevices()
	if err != nil {
		return err
	}
	for ifindex := range devices {
		for _, hook := range a.hooks {
			if hook == maps.HookXDP {
				continue // always by a link
			}
			if err := a.adoptFilter(ifindex, hook); err != nil {
				return fmt.Errorf("device %d: %w", ifindex, err)
			}
		}
	}
	return nil
}

// adoptFilter takes over ebb's filter at a device, if it has one and no tcx link
// is known there.
func (a *Attacher) adoptFilter(ifindex int, hook maps.Hook) error {
	found, err := findFilter(ifindex, hook)
	if found == nil || err != nil {
		return err
	}
	dev, err := deviceByIndex(ifindex)
	if dev == nil || err != nil {
		return err
	}
	f := &filter{what: Attachment{
		Device:    dev.Attrs().Name,
		Ifindex:   ifindex,
		Hook:      hook,
		Mode:      modeClsact,
		ProgramID: uint32(found.Id),
	}}
	s := spot{ifindex, hook}
	if _, taken := a.attached[s]; taken {
		return f.detach()
	}
	a.attached[s] = f
	return nil
}
