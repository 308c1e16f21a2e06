package loader

import (
	"net/netip"
	"slices"
)

// ChooseAll returns the uplinks and, with them, all other devices that need programs so
// that what is translated finds its way back: the ports of uplinks that are bridges, and
// those that lead to other machines although they are no uplinks. Sorted by name.
func (c UplinkChoice) ChooseAll() ([]Uplink, error) {
	devices, err := waysIn(c)
	if err != nil {
		return nil, err
	}
	uplinks := named(c.Names)
	if len(c.Names) == 0 {
		uplinks = c.choose(devices)
	}
	return c.complete(uplinks, devices), nil
}

// complete adds to uplinks what ChooseAll returns beside them.
func (c UplinkChoice) complete(uplinks []Uplink, devices []wayIn) []Uplink {
	chosen := make(map[string]*Uplink)
	for i := range uplinks {
		chosen[uplinks[i].Name] = &uplinks[i]
	}
	var more []Uplink
	for _, d := range devices {
		u, bridge := chosen[d.Name], chosen[d.Master]
		isPort := d.Member && bridge != nil && isPort(d, *bridge, devices)
		switch {
		case u != nil:
			// Kept from an earlier agent, as long as little is known of the node.
			u.Port, u.Answers = isPort, !u.Required && (d.Tunnel || isPluginDevice(d.Name))
			if isPort {
				bridge.Ports = true
			}
			u.Mixed = !u.Required && d.Kind == "bridge" && !anyNIC(d.Name, devices)
		case isPort:
			bridge.Ports = true
			more = append(more, Uplink{Name: d.Name, Required: bridge.Required, Port: true})
		case c.leadsAway(d):
			more = append(more, Uplink{Name: d.Name, Answers: true, Mixed: !d.Tunnel})
		}
	}
	return sorted(slices.Concat(uplinks, more))
}

// isPort reports whether what comes in by port d of bridge is to be looked at there. By
// the looks of it a pod's end of a bridge cannot be told from a NIC in a container. A
// bridge that is not known to be the node's is more likely one of pods.
func isPort(d wayIn, bridge Uplink, devices []wayIn) bool {
	isBridge := slices.ContainsFunc(devices, func(m wayIn) bool { return m.Name == bridge.Name && m.Kind == "bridge" })
	return isBridge && d.Up && !d.PodLink && (bridge.Required || !leadsToGuests(d.Kind))
}

// leadsToGuests reports whether devices of a kind lead to pods and virtual machines.
func leadsToGuests(kind string) bool { return kind == "veth" || kind == "tuntap" }

// anyNIC reports whether a port of a bridge leads to other machines, by its kind.
func anyNIC(bridge string, devices []wayIn) bool {
	return slices.ContainsFunc(devices, func(d wayIn) bool { return d.Master == bridge && !leadsToGuests(d.Kind) })
}

// leadsAway reports whether packets to other machines may leave by d, which is no uplink.
func (c UplinkChoice) leadsAway(d wayIn) bool {
	if d.Loopback || d.Member || !d.Up || d.PodLink || receivesNothing(d.Kind) {
		return false
	}
	if d.Default || d.Tunnel || d.Beyond {
		return true
	}
	return !isPluginDevice(d.Name) && !slices.ContainsFunc(d.Addrs, c.isPods) &&
		slices.ContainsFunc(d.Addrs, netip.Addr.IsGlobalUnicast)
}
