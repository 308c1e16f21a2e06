package loader

import (
	"errors"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/ebb-lb/ebb/maps"
)

// StationMap is the map of the addresses that frames for this node are sent to.
// Package maps provides it.
type StationMap interface {
	Put(s maps.Station, owner uint32) error
	Delete(maps.Station) error
	All() (map[maps.Station]uint32, error)
}

// SyncStations makes m say which frames that come in at uplinks are this node's: those
// to a device's own address, and to those of the devices stacked on it, such as VLAN and
// macvlan devices, bridges and bonds. Only differences are written. Names without a device
// are left out.
func SyncStations(m StationMap, uplinks []string) error {
	want := func(devices []netlink.Link) map[maps.Station]uint32 { return wantedStations(uplinks, devices) }
	return syncTable("stations", m, want, func(have, want map[maps.Station]uint32) error { return applyStations(m, have, want) })
}

// wantedStations decides what the map shall contain. Programs of a bond see frames
// come in by its members, of which the kernel listens to the active ones.
func wantedStations(uplinks []string, devices []netlink.Link) map[maps.Station]uint32 {
	s := stationSet{devices: devices, found: make(map[maps.Station]uint32)}
	for _, dev := range devices {
		if !slices.Contains(uplinks, dev.Attrs().Name) {
			continue
		}
		s.add(dev, dev, 0)
		if dev.Type() != "bond" {
			continue
		}
		for _, member := range devices {
			if member.Attrs().MasterIndex == dev.Attrs().Index && isActive(member) {
				s.add(member, member, 0)
			}
		}
	}
	return s.found
}

// isActive reports whether a bond takes frames from its member.
func isActive(member netlink.Link) bool {
	slave, ok := member.Attrs().Slave.(*netlink.BondSlave)
	return !ok || slave.State == netlink.BondStateActive
}

// stationSet gathers stations.
type stationSet struct {
	devices []netlink.Link
	found   map[maps.Station]uint32
}

// add notes dev, and what is stacked on it, for frames with a tag that come in by in.
func (s stationSet) add(in, dev netlink.Link, tag int) {
	station := maps.Station{Ifindex: uint32(in.Attrs().Index), VLAN: uint16(tag)}
	if copy(station.MAC[:], dev.Attrs().HardwareAddr) != len(station.MAC) || station.Validate() != nil {
		return // without an Ethernet header there is nobody else
	}
	_, known := s.found[station]
	if !known {
		s.found[station] = uint32(dev.Attrs().Index)
	}
	for _, upper := range s.devices {
		if id, ok := stackedOn(upper, dev, tag); ok && upper.Attrs().Index != in.Attrs().Index {
			s.add(in, upper, id)
		}
	}
}

// stackedOn reports whether upper gets frames with a tag that arrive at lower, and with
// which tag they are its own. Of two tags there are no stations.
func stackedOn(upper, lower netlink.Link, tag int) (int, bool) {
	attrs := upper.Attrs()
	if attrs.Index == lower.Attrs().MasterIndex {
		return tag, slices.Contains([]string{"bridge", "bond", "team"}, upper.Type())
	}
	if attrs.ParentIndex != lower.Attrs().Index || attrs.NetNsID >= 0 {
		return 0, false
	}
	switch dev := upper.(type) {
	case *netlink.Vlan:
		return dev.VlanId, tag == 0 && dev.VlanId != 0 && dev.VlanProtocol == netlink.VLAN_PROTOCOL_8021Q
	case *netlink.Macvlan, *netlink.Macvtap, *netlink.IPVlan:
		return tag, true
	}
	return 0, false
}

// applyStations adds before it removes: a device that gets another address is heard
// by XDP all the time.
func applyStations(m StationMap, have, want map[maps.Station]uint32) error {
	return errors.Join(putMissing(m, have, want, maps.Station.Compare), deleteRest(m, have, want, maps.Station.Compare))
}
