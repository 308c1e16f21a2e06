package loader

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
)

// DeviceMap is the map that tells programs how packets leave by devices. Package maps
// provides it.
type DeviceMap interface {
	Put(ifindex uint32, d maps.Device) error
	Delete(ifindex uint32) error
	All() (map[uint32]maps.Device, error)
}

// DevicesBeside is what decides about devices beside the programs on them.
type DevicesBeside struct {
	// Chosen are the devices that have programs; others have none for a reason of their own.
	Chosen []Uplink
	// NodeAddrs are preferred as sources, in their order.
	NodeAddrs []netip.Addr
}

// SyncDevices makes m say what attachments allow: where programs see what comes back,
// flows may leave by a device, from an address of it. XDP may send through a device
// on which it runs, and through a VLAN device directly above such a device. Only
// differences are written. Devices that are gone are removed.
func SyncDevices(m DeviceMap, attachments []Attachment, b DevicesBeside) error {
	sources, err := sourceAddresses()
	if err != nil {
		return fmt.Errorf("sync devices: list addresses: %w", err)
	}
	want := func(devices []netlink.Link) map[uint32]maps.Device {
		return wantedDevices(attachments, devices, b, sources)
	}
	return syncTable("devices", m, want, func(have, want map[uint32]maps.Device) error { return applyDevices(m, have, want) })
}

// wantedDevices decides what the map shall contain.
func wantedDevices(attachments []Attachment, devices []netlink.Link, b DevicesBeside, sources map[int][]netip.Addr) map[uint32]maps.Device {
	want := attachedDevices(attachments, b, sources)
	markStacked(want, devices)
	for _, dev := range devices {
		vlan, ok := dev.(*netlink.Vlan)
		if !ok || vlan.VlanProtocol != netlink.VLAN_PROTOCOL_8021Q || elsewhere(vlan) {
			continue
		}
		lower := want[uint32(vlan.ParentIndex)]
		if !lower.XDPTx || lower.Lower != 0 {
			continue
		}
		d := want[uint32(vlan.Index)]
		d.Lower, d.VLAN, d.XDPTx = uint32(vlan.ParentIndex), uint16(vlan.VlanId), true
		want[uint32(vlan.Index)] = d
	}
	return want
}

// stackedKinds are the kinds of devices that take packets from the device below them as
// they came in there.
var stackedKinds = []string{"vlan", "macvlan", "macvtap", "ipvlan"}

// markStacked notes which devices with programs are above others that have some.
func markStacked(want map[uint32]maps.Device, devices []netlink.Link) {
	for _, dev := range devices {
		attrs := dev.Attrs()
		d, attached := want[uint32(attrs.Index)]
		_, below := want[uint32(attrs.ParentIndex)]
		if attached && below && attrs.NetNsID < 0 && slices.Contains(stackedKinds, dev.Type()) {
			d.Stacked = true
			want[uint32(attrs.Index)] = d
		}
	}
}

// attachedDevices says what is so of each device because of the programs on it.
func attachedDevices(attachments []Attachment, b DevicesBeside, sources map[int][]netip.Addr) map[uint32]maps.Device {
	want := make(map[uint32]maps.Device)
	for _, at := range attachments {
		index := uint32(at.Ifindex)
		d := want[index]
		switch at.Hook {
		case maps.HookXDP:
			d.XDPTx = true
		case maps.HookTCIngress:
			u := b.chosen(at.Device)
			d.Away, d.Answers, d.Stacked = !u.Mixed, u.Answers, u.Ports
			d.SNAT4 = b.source(sources[at.Ifindex], netip.Addr.Is4)
			d.SNAT6 = b.source(sources[at.Ifindex], netip.Addr.Is6)
		default:
			continue
		}
		want[index] = d
	}
	return want
}

// chosen returns the device of a name; one that is not chosen any more is like an uplink.
func (b DevicesBeside) chosen(name string) Uplink {
	if i := slices.IndexFunc(b.Chosen, func(u Uplink) bool { return u.Name == name }); i >= 0 {
		return b.Chosen[i]
	}
	return Uplink{Name: name}
}

// source returns the address of one family that flows have that leave by a device with
// addrs: the node's own if it is there, else the first, as MASQUERADE takes it. Invalid:
// there is none.
func (b DevicesBeside) source(addrs []netip.Addr, family func(netip.Addr) bool) netip.Addr {
	for _, a := range b.NodeAddrs {
		if family(a) && slices.Contains(addrs, a) {
			return a
		}
	}
	for _, a := range addrs {
		if family(a) {
			return a
		}
	}
	return netip.Addr{}
}

// sourceAddresses returns by ifindex the addresses that packets may be sent from: those
// that others can answer, and that the kernel would choose itself.
func sourceAddresses() (map[int][]netip.Addr, error) {
	const not = unix.IFA_F_SECONDARY | unix.IFA_F_DEPRECATED | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED
	return addressesThat(func(a netlink.Addr, addr netip.Addr) bool {
		return addr.IsGlobalUnicast() && a.Flags&not == 0 && a.Scope == unix.RT_SCOPE_UNIVERSE
	})
}

// elsewhere reports whether the device below vlan is in another network
// namespace, where the same ifindex means another device.
func elsewhere(vlan *netlink.Vlan) bool { return vlan.NetNsID >= 0 }

// applyDevices removes what XDP must not use before it adds what it may.
func applyDevices(m DeviceMap, have, want map[uint32]maps.Device) error {
	return errors.Join(deleteRest(m, have, want, cmp.Compare[uint32]), putMissing(m, have, want, cmp.Compare[uint32]))
}
