package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
)

// filterHandle and the name tell ebb's filters from those of others.
const filterHandle = 0xebb

// The priorities put ebb first at ingress and last at egress, as with tcx.
const (
	ingressPriority = 1
	egressPriority  = 0xebb0
)

// filter is an attachment by a direct-action bpf filter, for kernels without tcx.
// It belongs to the device, so it needs no pin.
type filter struct {
	what Attachment
}

// attachClsact puts p in place as a filter, replacing an earlier one of ebb
// atomically. The clsact qdisc is added if the device has none.
func attachClsact(dev netlink.Link, hook maps.Hook, p *ebpf.Program) (attachment, error) {
	if err := ensureClsact(dev); err != nil {
		return nil, err
	}
	f := &filter{what: Attachment{
		Device:  dev.Attrs().Name,
		Ifindex: dev.Attrs().Index,
		Hook:    hook,
		Mode:    modeClsact,
	}}
	if err := f.replace(p); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *filter) describe() Attachment { return f.what }

func (f *filter) rename(device string) error {
	f.what.Device = device
	return nil
}

func (f *filter) close() error { return nil }

func (f *filter) program() (ebpf.ProgramID, bool, error) {
	found, err := findFilter(f.what.Ifindex, f.what.Hook)
	if found == nil || err != nil {
		return 0, false, err
	}
	return ebpf.ProgramID(found.Id), true, nil
}

func (f *filter) replace(p *ebpf.Program) error {
	id, err := programID(p)
	if err != nil {
		return err
	}
	at, err := filterInPlace(f.what.Ifindex, f.what.Hook)
	if err != nil {
		return err
	}
	if at != nil && ours(at, f.what.Hook) == nil {
		return fmt.Errorf("put filter: somebody else's has priority %d and handle %#x", at.Attrs().Priority, filterHandle)
	}
	if err := netlink.FilterReplace(newFilter(f.what.Ifindex, f.what.Hook, p.FD())); err != nil {
		return fmt.Errorf("put filter (priority %d): %w", filterPriority(f.what.Hook), err)
	}
	f.what.ProgramID = uint32(id)
	return nil
}

func (f *filter) detach() error {
	found, err := findFilter(f.what.Ifindex, f.what.Hook)
	if err != nil {
		return err
	}
	if found != nil {
		err := netlink.FilterDel(newFilter(f.what.Ifindex, f.what.Hook, -1))
		if err != nil && !isGone(err) {
			return fmt.Errorf("delete filter: %w", err)
		}
	}
	return removeUnusedClsact(f.what.Ifindex)
}

// newFilter returns ebb's filter for a device and hook. A negative fd leaves the
// program out.
func newFilter(ifindex int, hook maps.Hook, fd int) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex,
			Parent:    filterParent(hook),
			Handle:    filterHandle,
			Protocol:  unix.ETH_P_ALL,
			Priority:  filterPriority(hook),
		},
		Fd:           fd,
		Name:         filterName(hook),
		DirectAction: true,
	}
}

func filterParent(hook maps.Hook) uint32 {
	if egress(hook) {
		return netlink.HANDLE_MIN_EGRESS
	}
	return netlink.HANDLE_MIN_INGRESS
}

func filterPriority(hook maps.Hook) uint16 {
	if egress(hook) {
		return egressPriority
	}
	return ingressPriority
}

func filterName(hook maps.Hook) string {
	switch hook {
	case maps.HookTCEgress:
		return programTCEgress
	case maps.HookPodIngress:
		return programPodIn
	case maps.HookPodEgress:
		return programPodOut
	}
	return programTCIngress
}

// findFilter returns ebb's filter, or nil.
func findFilter(ifindex int, hook maps.Hook) (*netlink.BpfFilter, error) {
	f, err := filterInPlace(ifindex, hook)
	if f == nil || err != nil {
		return nil, err
	}
	return ours(f, hook), nil
}

// filterInPlace returns the filter, whoever owns it, that has the handle and the
// priority of ebb's, or nil.
func filterInPlace(ifindex int, hook maps.Hook) (netlink.Filter, error) {
	filters, err := listFilters(ifindex, hook)
	if err != nil {
		return nil, err
	}
	for _, f := range filters {
		if f.Attrs().Handle == filterHandle && f.Attrs().Priority == filterPriority(hook) {
			return f, nil
		}
	}
	return nil, nil
}

// ours returns f if it is ebb's, else nil.
func ours(f netlink.Filter, hook maps.Hook) *netlink.BpfFilter {
	b, ok := f.(*netlink.BpfFilter)
	if !ok || b.Name != filterName(hook) {
		return nil
	}
	return b
}

// listFilters returns all filters of a device at hook; none if the device or its
// clsact qdisc is gone.
func listFilters(ifindex int, hook maps.Hook) ([]netlink.Filter, error) {
	dev := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
	filters, err := dump(func() ([]netlink.Filter, error) {
		return netlink.FilterList(dev, filterParent(hook))
	})
	if err != nil && !isGone(err) {
		return nil, fmt.Errorf("list filters: %w", err)
	}
	return filters, nil
}

// ensureClsact adds a clsact qdisc to dev unless it has one. The older ingress
// qdisc takes the same place but has no egress side.
func ensureClsact(dev netlink.Link) error {
	err := netlink.QdiscAdd(newClsact(dev.Attrs().Index))
	if err == nil || !errors.Is(err, unix.EEXIST) {
		if err != nil {
			return fmt.Errorf("add clsact qdisc: %w", err)
		}
		return nil
	}
	found, err := clsactDevices()
	if err != nil {
		return err
	}
	if !found[dev.Attrs().Index] {
		return errors.New("add clsact qdisc: an ingress qdisc is in its place")
	}
	return nil
}

// clsactDevices returns the ifindexes of all devices with a clsact qdisc.
func clsactDevices() (map[int]bool, error) {
	qdiscs, err := dump(func() ([]netlink.Qdisc, error) { return netlink.QdiscList(nil) })
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	found := make(map[int]bool)
	for _, q := range qdiscs {
		if _, ok := q.(*netlink.Clsact); ok {
			found[q.Attrs().LinkIndex] = true
		}
	}
	return found, nil
}

// removeUnusedClsact removes the clsact qdisc if there is one and nobody has a
// filter there.
func removeUnusedClsact(ifindex int) error {
	found, err := clsactDevices()
	if err != nil || !found[ifindex] {
		return err
	}
	for _, hook := range []maps.Hook{maps.HookTCIngress, maps.HookTCEgress} {
		filters, err := listFilters(ifindex, hook)
		if err != nil {
			return err
		}
		if len(filters) > 0 {
			return nil
		}
	}
	if err := netlink.QdiscDel(newClsact(ifindex)); err != nil && !isGone(err) {
		return fmt.Errorf("remove clsact qdisc: %w", err)
	}
	return nil
}

func newClsact(ifindex int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}}
}

// isGone reports whether err means that a device, qdisc or filter is not there.
func isGone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)
}
