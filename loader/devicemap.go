package loader

import (
	"errors"
	"fmt"
	"slices"

	stdmaps "maps"

	"github.com/vishvananda/netlink"

	"github.com/ebb-lb/ebb/maps"
)

// DeviceMap is the map that tells XDP by which devices it may send. Package maps
// provides it.
type DeviceMap interface {
	Put(ifindex uint32, d maps.Device) error
	Delete(ifindex uint32) error
	All() (map[uint32]maps.Device, error)
}

// SyncDevices makes m say what attachments allow: XDP may send through a device
// on which it runs, and through a VLAN device directly above such a device. Only
// differences are written. Devices that are gone are removed.
func SyncDevices(m DeviceMap, attachments []Attachment) error {
	devices, err := dump(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("sync devices: list devices: %w", err)
	}
	have, err := m.All()
	if err != nil {
		return fmt.Errorf("sync devices: %w", err)
	}
	if err := applyDevices(m, have, wantedDevices(attachments, devices)); err != nil {
		return fmt.Errorf("sync devices: %w", err)
	}
	return nil
}

// wantedDevices decides what the map shall contain.
func wantedDevices(attachments []Attachment, devices []netlink.Link) map[uint32]maps.Device {
	want := make(map[uint32]maps.Device)
	for _, at := range attachments {
		if at.Hook == maps.HookXDP {
			want[uint32(at.Ifindex)] = maps.Device{XDPTx: true}
		}
	}
	stacked := make(map[uint32]maps.Device)
	for _, dev := range devices {
		vlan, ok := dev.(*netlink.Vlan)
		if !ok || vlan.VlanProtocol != netlink.VLAN_PROTOCOL_8021Q || elsewhere(vlan) {
			continue
		}
		lower := uint32(vlan.ParentIndex)
		if _, ok := want[lower]; ok {
			stacked[uint32(vlan.Index)] = maps.Device{Lower: lower, VLAN: uint16(vlan.VlanId), XDPTx: true}
		}
	}
	stdmaps.Copy(want, stacked)
	return want
}

// elsewhere reports whether the device below vlan is in another network
// namespace, where the same ifindex means another device.
func elsewhere(vlan *netlink.Vlan) bool { return vlan.NetNsID >= 0 }

// applyDevices removes what XDP must not use before it adds what it may.
func applyDevices(m DeviceMap, have, want map[uint32]maps.Device) error {
	var errs []error
	for _, ifindex := range slices.Sorted(stdmaps.Keys(have)) {
		if _, ok := want[ifindex]; !ok {
			errs = append(errs, m.Delete(ifindex))
		}
	}
	for _, ifindex := range slices.Sorted(stdmaps.Keys(want)) {
		if d, ok := have[ifindex]; !ok || d != want[ifindex] {
			errs = append(errs, m.Put(ifindex, want[ifindex]))
		}
	}
	return errors.Join(errs...)
}
