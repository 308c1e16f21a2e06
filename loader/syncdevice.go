package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/ebb-lb/ebb/maps"
)

// syncDevice brings one device to the wanted state.
func (a *Attacher) syncDevice(dev netlink.Link) error {
	var errs []error
	for _, hook := range a.hooks {
		if err := a.syncHook(dev, hook); err != nil {
			errs = append(errs, fmt.Errorf("attach %s on %s: %w", hook, dev.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}

func (a *Attacher) syncHook(dev netlink.Link, hook maps.Hook) error {
	if hook == maps.HookXDP {
		return a.syncXDP(dev)
	}
	return a.ensure(dev, hook, a.attachTC)
}

// attachFunc attaches p to an empty spot.
type attachFunc func(dev netlink.Link, hook maps.Hook, p *ebpf.Program) (attachment, error)

// ensure makes the program for hook run on dev: it updates what is attached, or
// attaches anew what is not there (any more).
func (a *Attacher) ensure(dev netlink.Link, hook maps.Hook, attach attachFunc) error {
	p, id, err := a.wanted(dev, hook)
	if err != nil {
		return err
	}
	s := spot{dev.Attrs().Index, hook}
	if at, ok := a.attached[s]; ok {
		kept, err := a.keep(at, p, id)
		if err != nil || kept {
			return err
		}
		a.log.Warn("attachment has vanished, attaching again", "device", dev.Attrs().Name, "hook", hook.String())
		if err := a.drop(s); err != nil {
			return err
		}
	}
	at, err := attach(dev, hook, p)
	if err != nil {
		return err
	}
	a.attached[s] = at
	a.note("attached", "device", dev.Attrs().Name, "ifindex", s.ifindex, "hook", hook.String(),
		"mode", at.describe().Mode, "program", uint32(id))
	return nil
}

// wanted returns the program for hook on dev, and its id.
func (a *Attacher) wanted(dev netlink.Link, hook maps.Hook) (*ebpf.Program, ebpf.ProgramID, error) {
	header, err := headed(dev)
	if err != nil {
		return nil, 0, err
	}
	p, err := a.programs.For(hook, header)
	if err != nil {
		return nil, 0, err
	}
	if p == nil {
		return nil, 0, errors.New("the program is not loaded")
	}
	id, err := programID(p)
	return p, id, err
}

// keep updates at to run p. It returns false if there is nothing left to update.
func (a *Attacher) keep(at attachment, p *ebpf.Program, id ebpf.ProgramID) (bool, error) {
	running, present, err := at.program()
	if err != nil || !present {
		return false, err
	}
	if running == id {
		return true, nil
	}
	if err := at.replace(p); err != nil {
		return true, fmt.Errorf("replace program %d: %w", running, err)
	}
	a.note("program replaced", "device", at.describe().Device, "hook", at.describe().Hook.String(),
		"program", uint32(id), "was", uint32(running))
	return true, nil
}

// attachTC takes tcx where the kernel has it, else clsact.
func (a *Attacher) attachTC(dev netlink.Link, hook maps.Hook, p *ebpf.Program) (attachment, error) {
	if !a.noTCX {
		at, err := attachTCX(dev, hook, p, a.dir)
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return at, err
		}
	}
	return attachClsact(dev, hook, p)
}

// syncXDP brings XDP on dev to the wanted mode. Going from one mode to another
// needs a moment without XDP, the kernel does not allow both; TC serves meanwhile.
func (a *Attacher) syncXDP(dev netlink.Link) error {
	s := spot{dev.Attrs().Index, maps.HookXDP}
	mode := a.xdpMode(dev)
	if at, ok := a.attached[s]; ok && at.describe().Mode != mode {
		if err := a.drop(s); err != nil {
			return err
		}
	}
	if mode == "" {
		return nil
	}
	err := a.ensure(dev, maps.HookXDP, func(dev netlink.Link, _ maps.Hook, p *ebpf.Program) (attachment, error) {
		return attachXDP(dev, mode, p, a.dir)
	})
	if err == nil || a.mode != XDPAuto && !a.optional(dev) {
		return err
	}
	// A refusal may cost the driver a reset, so it is not asked again.
	a.refused[s.ifindex] = true
	a.log.Info("no native XDP, TC serves alone", "device", dev.Attrs().Name, "reason", err)
	if _, ok := a.attached[s]; ok {
		return a.drop(s)
	}
	return nil
}

// xdpMode returns the mode XDP shall have on dev; "" for none. The program knows
// Ethernet only. Requests do not come in by devices for answers, and not by bridges
// whose ports have programs; of ports those of guests are not for XDP.
func (a *Attacher) xdpMode(dev netlink.Link) string {
	u := a.chosen[dev.Attrs().Index]
	if !ethernet(dev) || u.Answers || a.optional(dev) && a.refused[dev.Attrs().Index] {
		return ""
	}
	if u.Ports || u.Port && !a.physical(u.Name) {
		return ""
	}
	switch a.mode {
	case XDPNative:
		return modeNative
	case XDPGeneric:
		return modeGeneric
	case XDPAuto:
		if a.physical(dev.Attrs().Name) && !a.refused[dev.Attrs().Index] {
			return modeNative
		}
	}
	return ""
}

// hasHardware reports whether there is hardware below a device: it is neither
// made by software nor stacked on another one.
func hasHardware(device string) bool {
	_, err := os.Stat(filepath.Join("/sys/class/net", device, "device"))
	return err == nil
}

// programID returns the kernel's id of p.
func programID(p *ebpf.Program) (ebpf.ProgramID, error) {
	info, err := p.Info()
	if err != nil {
		return 0, fmt.Errorf("read program info: %w", err)
	}
	id, ok := info.ID()
	if !ok {
		return 0, errors.New("read program info: the kernel gives programs no ids")
	}
	return id, nil
}
