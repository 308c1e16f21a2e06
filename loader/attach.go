package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	stdmaps "maps"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/ebb-lb/ebb/maps"
)

// Attachment is one program on one device.
type Attachment struct {
	Device  string
	Ifindex int
	Hook    maps.Hook
	// Mode is "tcx", "clsact", "native" or "generic".
	Mode string
	// ProgramID is the kernel's id of the program.
	ProgramID uint32
}

// The modes of an attachment.
const (
	modeTCX     = "tcx"
	modeClsact  = "clsact"
	modeNative  = "native"
	modeGeneric = "generic"
)

// spot is where a program can be. Devices are told apart by ifindex: names move.
type spot struct {
	ifindex int
	hook    maps.Hook
}

// attachment is a program that sits on a device and outlives the process.
type attachment interface {
	// describe says what it is, without asking the kernel.
	describe() Attachment
	// program asks the kernel which program runs there; false if the attachment
	// or its device is gone.
	program() (ebpf.ProgramID, bool, error)
	// replace puts p in place of the program, atomically.
	replace(p *ebpf.Program) error
	// rename follows a device that got another name.
	rename(device string) error
	// detach takes it off the device. A device or attachment that is already
	// gone is not an error.
	detach() error
	// close releases what the process holds; the program stays where it is.
	close() error
}

// uplinkHooks and podHooks are in the order in which a device gets its programs:
// what translates replies back is there before anything translates forward.
// Detaching goes the other way.
var (
	uplinkHooks = []maps.Hook{maps.HookTCEgress, maps.HookTCIngress, maps.HookXDP}
	podHooks    = []maps.Hook{maps.HookPodEgress, maps.HookPodIngress}
)

// egress reports whether packets leave a device at hook.
func egress(hook maps.Hook) bool { return hook == maps.HookTCEgress || hook == maps.HookPodEgress }

// Attacher keeps programs on devices. Everything it attaches outlives it: links
// are pinned, filters belong to their device. It is safe for concurrent use. The
// owner closes it.
type Attacher struct {
	programs *Programs
	hooks    []maps.Hook // this Attacher's business; in the order of attaching
	dir      string
	mode     XDPMode
	log      *slog.Logger
	level    slog.Level // of what is ordinary

	physical func(device string) bool // is there hardware below it
	noTCX    bool                     // use clsact even where there is tcx

	mu       sync.Mutex
	adopted  bool
	attached map[spot]attachment
	refused  map[int]bool      // ifindexes whose driver refused native XDP
	chosen   map[int]Uplink    // by ifindex, as of the last Sync
	failed   map[string]string // by uplink: what it lacks since the last Sync, and why
	unserved error             // why the last Sync left required devices without programs
}

// NewAttacher returns an Attacher for uplinks that pins links in pinDir (see [LinksDir]) and
// attaches nothing yet. The programs stay the caller's and must live as long as
// the Attacher is used; they may be nil if only DetachAll is called.
func NewAttacher(programs *Programs, pinDir string, mode XDPMode, log *slog.Logger) *Attacher {
	return &Attacher{
		programs: programs,
		hooks:    uplinkHooks,
		dir:      pinDir,
		mode:     mode,
		log:      log,
		physical: hasHardware,
		attached: make(map[spot]attachment),
		refused:  make(map[int]bool),
		chosen:   make(map[int]Uplink),
		failed:   make(map[string]string),
	}
}

// Sync is [Attacher.SyncUplinks] for devices that are all required.
func (a *Attacher) Sync(names []string) error { return a.SyncUplinks(named(names)) }

// SyncUplinks brings the given devices, and no others, to the wanted state: TC
// ingress and egress on each, XDP as the mode says and the device allows, all of them
// this Attacher's programs. What an earlier agent left is taken over by replacing its
// program, without a gap. A device that does not exist gets its programs in the Sync
// after it appeared. Sync is idempotent; the error joins the failures of required
// devices, the others are served nevertheless. What a device lacks is logged once, and
// told by Unserved.
func (a *Attacher) SyncUplinks(uplinks []Uplink) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unserved = a.sync(uplinks)
	return a.unserved
}

func (a *Attacher) sync(uplinks []Uplink) error {
	if err := a.adopt(); err != nil {
		return err
	}
	failed := make(map[string]string)
	devices, err := a.resolve(uplinks, failed)
	if err != nil {
		return err
	}
	errs := []error{a.dropAllBut(devices), a.followRenames(devices)}
	for _, dev := range devices {
		errs = append(errs, a.syncUplink(dev, failed))
	}
	a.report(failed)
	return errors.Join(errs...)
}

// syncUplink notes in failed what dev lacks, and returns an error if it is required.
// Others may vanish at any time.
func (a *Attacher) syncUplink(dev netlink.Link, failed map[string]string) error {
	err := a.syncDevice(dev)
	if err == nil {
		return nil
	}
	if a.optional(dev) {
		if now, look := deviceByIndex(dev.Attrs().Index); now == nil && look == nil {
			return nil
		}
	}
	failed[dev.Attrs().Name] = err.Error()
	if a.optional(dev) {
		return nil
	}
	return err
}

// optional reports whether dev is served as well as can be.
func (a *Attacher) optional(dev netlink.Link) bool { return !a.chosen[dev.Attrs().Index].Required }

// report logs what has come to be in failed, or has left it, since the last time.
func (a *Attacher) report(failed map[string]string) {
	for _, name := range slices.Sorted(stdmaps.Keys(failed)) {
		if a.failed[name] != failed[name] {
			a.log.Warn("uplink not served completely", "device", name, "error", failed[name])
		}
	}
	for _, name := range slices.Sorted(stdmaps.Keys(a.failed)) {
		if _, still := failed[name]; !still {
			a.log.Info("uplink served, or an uplink no more", "device", name)
		}
	}
	a.failed = failed
}

// Unserved returns why uplinks are not served, or not completely, by name. It is as of
// the last Sync.
func (a *Attacher) Unserved() map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return stdmaps.Clone(a.failed)
}

// syncAll attaches to devices by attach and detaches from all others.
func (a *Attacher) syncAll(devices []netlink.Link, attach func(netlink.Link)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.adopt(); err != nil {
		return err
	}
	if err := errors.Join(a.dropAllBut(devices), a.followRenames(devices)); err != nil {
		return err
	}
	for _, dev := range devices {
		attach(dev)
	}
	return nil
}

// syncNew attaches to a device that came or was renamed. That what is attached
// is still there is not asked.
func (a *Attacher) syncNew(dev netlink.Link, attach func(netlink.Link)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.followRenames([]netlink.Link{dev}); err != nil {
		return err
	}
	for _, hook := range a.hooks {
		if _, ok := a.attached[spot{dev.Attrs().Index, hook}]; !ok {
			attach(dev)
			break
		}
	}
	return nil
}

// holds reports whether anything is attached to a device, also by an earlier agent.
func (a *Attacher) holds(ifindex int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.hooks, func(h maps.Hook) bool { return a.attached[spot{ifindex, h}] != nil })
}

// holdsAny reports whether anything is attached anywhere, also by an earlier agent.
func (a *Attacher) holdsAny() (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.adopt()
	return len(a.attached) > 0, err
}

// dropDevice detaches from one device, which may have vanished.
func (a *Attacher) dropDevice(ifindex int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, hook := range slices.Backward(a.hooks) {
		if _, ok := a.attached[spot{ifindex, hook}]; ok {
			errs = append(errs, a.drop(spot{ifindex, hook}))
		}
	}
	return errors.Join(errs...)
}

// resolve returns the devices that exist, by ifindex, and notes what they were chosen
// for, and in failed those that do not exist.
func (a *Attacher) resolve(uplinks []Uplink, failed map[string]string) ([]netlink.Link, error) {
	var devices []netlink.Link
	chosen := make(map[int]Uplink)
	for _, u := range uplinks {
		dev, err := netlink.LinkByName(u.Name)
		if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
			if u.Required {
				failed[u.Name] = "the device does not exist; it will be served when it appears"
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look up device %s: %w", u.Name, err)
		}
		chosen[dev.Attrs().Index] = u
		devices = append(devices, dev)
	}
	a.chosen = chosen
	byIndex := func(x, y netlink.Link) int { return cmp.Compare(x.Attrs().Index, y.Attrs().Index) }
	slices.SortFunc(devices, byIndex)
	same := func(x, y netlink.Link) bool { return byIndex(x, y) == 0 }
	return slices.CompactFunc(devices, same), nil
}

// dropAllBut detaches from every device but the given ones.
func (a *Attacher) dropAllBut(devices []netlink.Link) error {
	keep := make(map[int]bool)
	for _, dev := range devices {
		keep[dev.Attrs().Index] = true
	}
	var errs []error
	for _, s := range a.spots() {
		if !keep[s.ifindex] {
			errs = append(errs, a.drop(s))
		}
	}
	return errors.Join(errs...)
}

// followRenames gives pins the names their devices have now. All of them are
// moved out of the way first, so that devices may have swapped names.
func (a *Attacher) followRenames(devices []netlink.Link) error {
	renamed := make(map[attachment]string)
	for _, dev := range devices {
		for _, hook := range a.hooks {
			at, ok := a.attached[spot{dev.Attrs().Index, hook}]
			if ok && at.describe().Device != dev.Attrs().Name {
				renamed[at] = dev.Attrs().Name
			}
		}
	}
	var errs []error
	for at := range renamed {
		// No device name contains a colon.
		errs = append(errs, at.rename(fmt.Sprintf(":%d", at.describe().Ifindex)))
	}
	for at, name := range renamed {
		errs = append(errs, at.rename(name))
		a.note("device was renamed", "device", name, "ifindex", at.describe().Ifindex)
	}
	return errors.Join(errs...)
}

// spots returns where programs are, in the order in which to detach them.
func (a *Attacher) spots() []spot {
	spots := make([]spot, 0, len(a.attached))
	for s := range a.attached {
		spots = append(spots, s)
	}
	slices.SortFunc(spots, func(x, y spot) int {
		return cmp.Or(cmp.Compare(x.ifindex, y.ifindex),
			cmp.Compare(slices.Index(a.hooks, y.hook), slices.Index(a.hooks, x.hook)))
	})
	return spots
}

// drop detaches what is at s and forgets it.
func (a *Attacher) drop(s spot) error {
	at := a.attached[s]
	what := at.describe()
	if err := at.detach(); err != nil {
		return fmt.Errorf("detach %s from %s: %w", what.Hook, what.Device, err)
	}
	delete(a.attached, s)
	a.note("detached", "device", what.Device, "ifindex", what.Ifindex, "hook", what.Hook.String(), "mode", what.Mode)
	return at.close()
}

// note logs what is ordinary.
func (a *Attacher) note(msg string, args ...any) {
	a.log.Log(context.Background(), a.level, msg, args...)
}

// Status returns what is attached, ordered by device and hook, as of the last
// Sync. It does not ask the kernel; Verify does.
func (a *Attacher) Status() []Attachment {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]Attachment, 0, len(a.attached))
	for _, at := range a.attached {
		list = append(list, at.describe())
	}
	slices.SortFunc(list, func(x, y Attachment) int {
		return cmp.Or(cmp.Compare(x.Device, y.Device), cmp.Compare(x.Hook, y.Hook))
	})
	return list
}

// Devices returns the names of the devices that have programs, sorted: those of an
// earlier agent too.
func (a *Attacher) Devices() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.adopt(); err != nil {
		return nil // Sync says so
	}
	names := make([]string, 0, len(a.attached))
	for _, at := range a.attached {
		names = append(names, at.describe().Device)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Verify asks the kernel whether every attachment is still there and runs the
// program it should. The error names each that does not, and includes what the
// last Sync could not attach.
func (a *Attacher) Verify() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	errs := []error{a.unserved}
	for _, s := range a.spots() {
		errs = append(errs, a.verify(a.attached[s]))
	}
	return errors.Join(errs...)
}

func (a *Attacher) verify(at attachment) error {
	want := at.describe()
	id, present, err := at.program()
	switch {
	case err != nil:
		return fmt.Errorf("verify %s on %s: %w", want.Hook, want.Device, err)
	case !present:
		return fmt.Errorf("verify %s on %s: no longer attached", want.Hook, want.Device)
	case uint32(id) != want.ProgramID:
		return fmt.Errorf("verify %s on %s: program %d runs instead of %d", want.Hook, want.Device, id, want.ProgramID)
	}
	return nil
}

// DetachAll takes every program of ebb off every device and removes the pins,
// also those an earlier agent left. Programs of others stay.
func (a *Attacher) DetachAll() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.adopt(); err != nil {
		return err
	}
	a.unserved = nil
	return a.dropAllBut(nil)
}

// Close releases what the process holds. Everything attached stays attached.
func (a *Attacher) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.forget()
}
