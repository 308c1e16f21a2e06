package loader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	stdmaps "maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
)

// PodLinks keeps programs on pods' links while pods come and go. Unlike an
// uplink, no single one of them decides whether the node works: what cannot be
// attached is logged, counted and tried again.
type PodLinks struct {
	attacher *Attacher
	choice   PodChoice
	log      *slog.Logger
	known    chan struct{} // has a value when uplinks were told

	uplinks atomic.Pointer[[]string] // nil: not told yet

	mu        sync.Mutex
	demand    demand
	failing   map[int]bool // ifindexes
	refused   map[int]bool // ifindexes without an Ethernet header
	unloaded  bool         // the programs are wanted, but the kernel does not take them
	loadAgain time.Time    // not before
}

// NewPodLinks returns PodLinks that attach nothing before Run. The programs stay
// the caller's; they may be nil if choice chooses nothing. The owner closes it.
func NewPodLinks(programs *Programs, pinDir string, choice PodChoice, log *slog.Logger) *PodLinks {
	a := NewAttacher(programs, pinDir, XDPOff, log)
	a.hooks, a.level = podHooks, slog.LevelDebug // some a second, where jobs run
	return &PodLinks{
		attacher: a, choice: choice, log: log, known: make(chan struct{}, 1),
		failing: make(map[int]bool), refused: make(map[int]bool),
	}
}

// SetUplinks tells which devices are no pods' links whatever they look like.
// Run attaches nothing before. It does not wait for what is under way.
func (p *PodLinks) SetUplinks(names []string) {
	names = slices.Clone(names)
	if was := p.uplinks.Swap(&names); was != nil && slices.Equal(*was, names) {
		return
	}
	p.wake()
}

// wake has Run look at all devices. It does not wait.
func (p *PodLinks) wake() {
	select {
	case p.known <- struct{}{}:
	default:
	}
}

// PodLinksStatus is how many links there are.
type PodLinksStatus struct{ Attached, Failing int }

// Status counts links as of the last change.
func (p *PodLinks) Status() PodLinksStatus {
	devices := make(map[int]bool)
	for _, at := range p.attacher.Status() {
		if at.Hook == maps.HookPodIngress {
			devices[at.Ifindex] = true
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	failing := len(p.failing)
	if p.unloaded {
		failing++
	}
	return PodLinksStatus{Attached: len(devices), Failing: failing}
}

// Sync looks at all devices: it attaches what is missing, takes over what an
// earlier agent left, and detaches what is chosen no more.
func (p *PodLinks) Sync() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, err := p.extent()
	if err != nil {
		return err
	}
	if e == extentNone {
		return p.attacher.syncAll(nil, nil)
	}
	if e == extentAll && !p.load() {
		return nil
	}
	devices, err := dump(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	names := make(map[int]string)
	for _, dev := range devices {
		names[dev.Attrs().Index] = dev.Attrs().Name
	}
	chosen := slices.DeleteFunc(devices, func(dev netlink.Link) bool {
		return !p.chooses(dev, names[dev.Attrs().MasterIndex], e)
	})
	stdmaps.DeleteFunc(p.failing, func(ifindex int, _ bool) bool {
		return !slices.ContainsFunc(chosen, func(dev netlink.Link) bool { return dev.Attrs().Index == ifindex })
	})
	return p.attacher.syncAll(chosen, p.attachIn(e))
}

// chooses decides about one device.
func (p *PodLinks) chooses(dev netlink.Link, master string, e extent) bool {
	attrs := dev.Attrs()
	if p.isUplink(attrs.Name) || !p.choice.wants(dev, master) {
		return false
	}
	if e != extentAll && !p.attacher.holds(attrs.Index) {
		return false
	}
	if ethernet(dev) {
		return true
	}
	if !p.refused[attrs.Index] {
		p.refused[attrs.Index] = true
		p.log.Warn("chosen as a pod's link, but it has no Ethernet header: nothing is attached",
			"device", attrs.Name, "type", dev.Type(), "encapsulation", attrs.EncapType)
	}
	return false
}

func (p *PodLinks) isUplink(name string) bool {
	uplinks := p.uplinks.Load()
	return uplinks != nil && slices.Contains(*uplinks, name)
}

// attach puts programs on one device. A device that has vanished is no failure.
func (p *PodLinks) attach(dev netlink.Link) {
	index := dev.Attrs().Index
	err := p.attacher.syncDevice(dev)
	if err == nil {
		delete(p.failing, index)
		return
	}
	if now, look := deviceByIndex(index); now == nil && look == nil {
		return // its removal is an event to come
	}
	if !p.failing[index] {
		p.failing[index] = true
		p.log.Error("pod's link", "error", err)
	}
}

// changed looks at one device again.
func (p *PodLinks) changed(ifindex int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, err := p.extent()
	if err != nil || e == extentNone || e == extentAll && !p.load() {
		return err
	}
	dev, err := deviceByIndex(ifindex)
	if err != nil {
		return err
	}
	if dev == nil {
		delete(p.failing, ifindex)
		delete(p.refused, ifindex)
		return p.attacher.dropDevice(ifindex)
	}
	master := ""
	if i := dev.Attrs().MasterIndex; i != 0 {
		if m, err := deviceByIndex(i); err == nil && m != nil {
			master = m.Attrs().Name
		}
	}
	if !p.chooses(dev, master, e) {
		return p.attacher.dropDevice(ifindex)
	}
	return p.attacher.syncNew(dev, p.attachIn(e))
}

// resync is how often all of them are looked at, whatever was heard.
const resync = 10 * time.Second

// Run follows devices as they come and go, until ctx ends, which is no error.
// Without a choice it only detaches what an earlier agent left.
func (p *PodLinks) Run(ctx context.Context) error {
	if p.choice.Any() {
		select {
		case <-ctx.Done():
			return nil
		case <-p.known:
		}
	}
	for {
		err := p.follow(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		p.log.Error("follow pods' links", "error", err, "retry", time.Second)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// follow works on events until something fails that a new subscription may mend.
func (p *PodLinks) follow(ctx context.Context) error {
	if !p.choice.Any() {
		return p.Sync()
	}
	events, err := subscribeLinks()
	if err != nil {
		return err
	}
	defer events.close()
	if err := p.syncAndTell(); err != nil {
		return err
	}
	tick := time.NewTicker(resync)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.known:
			err = p.Sync()
		case <-tick.C:
			err = p.Sync()
		case batch := <-events.changed:
			err = p.apply(batch)
		case err = <-events.failed:
		}
		if err != nil {
			return err
		}
	}
}

func (p *PodLinks) syncAndTell() error {
	begin := time.Now()
	if err := p.Sync(); err != nil {
		return err
	}
	s := p.Status()
	p.log.Info("pods' links", "attached", s.Attached, "failing", s.Failing, "took", time.Since(begin))
	return nil
}

// apply follows the changes of batch; nil: it is not known which there were.
func (p *PodLinks) apply(batch []int) error {
	if batch == nil {
		return p.Sync()
	}
	var errs []error
	for _, ifindex := range batch {
		errs = append(errs, p.changed(ifindex))
	}
	if err := errors.Join(errs...); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// DetachAll takes the programs off all pods' links, also those of an earlier agent.
func (p *PodLinks) DetachAll() error { return p.attacher.DetachAll() }

// Close releases what the process holds. Everything attached stays attached.
func (p *PodLinks) Close() error { return p.attacher.Close() }
