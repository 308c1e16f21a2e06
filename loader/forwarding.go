package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// DeviceWarning is a setting of an uplink because of which packets will be dropped.
type DeviceWarning struct {
	Device  string
	Warning string // a sentence without its full stop
}

// DeviceWarnings returns what the kernel's settings keep uplinks from: forwarding that is
// switched off, and a reverse path filter that drops clients. Devices that do not exist have
// no warnings. It changes nothing.
func DeviceWarnings(uplinks []string) ([]DeviceWarning, error) {
	devices, err := dump(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("look at uplinks: list devices: %w", err)
	}
	v4, v6, err := nodeFamilies()
	if err != nil {
		return nil, fmt.Errorf("look at uplinks: %w", err)
	}
	ways, err := bestDefaultDevices()
	if err != nil {
		return nil, fmt.Errorf("look at uplinks: %w", err)
	}
	var all []DeviceWarning
	var errs []error
	for _, dev := range devices {
		name := dev.Attrs().Name
		if !slices.Contains(uplinks, name) {
			continue
		}
		var found []string
		if v4 {
			more, err := warnings4(name, ways[dev.Attrs().Index])
			found, errs = append(found, more...), append(errs, err)
		}
		if v6 {
			more, err := warnings6(name)
			found, errs = append(found, more...), append(errs, err)
		}
		for _, w := range found {
			all = append(all, DeviceWarning{Device: name, Warning: w})
		}
	}
	return all, errors.Join(errs...)
}

// nodeFamilies reports of which families the node has addresses.
func nodeFamilies() (v4, v6 bool, err error) {
	own, err := OwnAddresses()
	if err != nil {
		return false, false, fmt.Errorf("list addresses: %w", err)
	}
	for a := range own {
		v4, v6 = v4 || a.Is4(), v6 || a.Is6()
	}
	return v4, v6, nil
}

// bestDefaultDevices returns the ifindexes that the IPv4 default route in force leads to.
func bestDefaultDevices() (map[int]bool, error) {
	routes, err := dump(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	best := -1
	var found map[int]bool
	for _, r := range routes {
		if !isDefault(r) || best >= 0 && r.Priority > best {
			continue
		}
		if best < 0 || r.Priority < best {
			best, found = r.Priority, make(map[int]bool)
		}
		for _, hop := range hops(r) {
			found[hop.ifindex] = true
		}
	}
	return found, nil
}

// warnings4 looks at one device. isWay: the default route leads to it.
func warnings4(dev string, isWay bool) ([]string, error) {
	forwards, err := sysctl("ipv4", dev, "forwarding")
	if err != nil {
		return nil, err
	}
	own, err := sysctl("ipv4", dev, "rp_filter")
	if err != nil {
		return nil, err
	}
	all, err := sysctl("ipv4", "all", "rp_filter")
	if err != nil {
		return nil, err
	}
	var found []string
	if forwards == "0" {
		found = append(found, fmt.Sprintf("IPv4 forwarding is off: packets to backends on other nodes and in pods are dropped; set net.ipv4.ip_forward=1, or net.ipv4.conf.%s.forwarding=1", dev))
	}
	if strict := max(own, all) == "1"; strict && !isWay { // of the two values the higher one is in force
		found = append(found, fmt.Sprintf("the reverse path filter is strict and the IPv4 default route is not by this device: requests from behind it that the node would answer by another device are dropped before they get to pods; set net.ipv4.conf.%s.rp_filter=2, or a route by it to these clients", dev))
	}
	return found, nil
}

// warnings6 looks at one device. Routing headers and the kernel's FIB ask the device,
// forwarding by the stack asks for all of them.
func warnings6(dev string) ([]string, error) {
	for _, who := range []string{dev, "all"} {
		forwards, err := sysctl("ipv6", who, "forwarding")
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil // a device without IPv6
		}
		if err != nil {
			return nil, err
		}
		if forwards == "0" {
			return []string{fmt.Sprintf("IPv6 forwarding is off (net.ipv6.conf.%s.forwarding): packets to backends on other nodes and in pods are dropped; set net.ipv6.conf.all.forwarding=1", who)}, nil
		}
	}
	return nil, nil
}

// sysctl reads a setting of a device in the caller's network namespace.
func sysctl(family, dev, name string) (string, error) {
	// In a path a device name needs no escapes: it has no slash.
	b, err := os.ReadFile(filepath.Join("/proc/sys/net", family, "conf", dev, name))
	if err != nil {
		return "", fmt.Errorf("read setting: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
