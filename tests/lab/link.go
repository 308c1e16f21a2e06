package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// end is one end of a virtual cable.
type end struct {
	ns  *NS
	dev string
}

// settings are what an end gets once its cable exists.
type settings struct {
	addrs    []netip.Prefix
	routes   []route
	features Features
}

// connect creates a veth pair between a and b. Both ends stay down.
func connect(a, b end, mtu int) error {
	b.ns.mu.RLock()
	defer b.ns.mu.RUnlock()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = a.dev, mtu
	veth := &netlink.Veth{
		LinkAttrs:     attrs,
		PeerName:      b.dev,
		PeerMTU:       uint32(mtu),
		PeerNamespace: netlink.NsFd(b.ns.net.Fd()),
	}
	err := a.ns.Do(func() error { return netlink.LinkAdd(veth) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("connect %s to %s: the kernel has no veth devices (CONFIG_VETH): %w", a.ns.name, b.ns.name, err)
	}
	if err != nil {
		return fmt.Errorf("connect %s to %s: %w", a.ns.name, b.ns.name, err)
	}
	return nil
}

// configure sets features, brings the device up, and adds addresses and routes.
func (e end) configure(s settings) error {
	return e.ns.Do(func() error {
		if err := setFeatures(e.dev, s.features); err != nil {
			return err
		}
		if err := linkUp(e.dev); err != nil {
			return err
		}
		for _, a := range s.addrs {
			if err := addAddr(e.dev, a); err != nil {
				return err
			}
		}
		for _, r := range s.routes {
			if err := addRoute(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// The functions below act on the namespace of the calling thread.

func addBridge(name string, mtu int, addrs ...netip.Prefix) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	snooping := false
	err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("add bridge %s: the kernel has no bridges (CONFIG_BRIDGE): %w", name, err)
	}
	if err != nil {
		return fmt.Errorf("add bridge %s: %w", name, err)
	}
	if err := linkUp(name); err != nil {
		return err
	}
	for _, a := range addrs {
		if err := addAddr(name, a); err != nil {
			return err
		}
	}
	return nil
}

func enslave(dev, bridge string) error {
	port, err := netlink.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("find %s: %w", dev, err)
	}
	master, err := netlink.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find %s: %w", bridge, err)
	}
	if err := netlink.LinkSetMaster(port, master); err != nil {
		return fmt.Errorf("add %s to bridge %s: %w", dev, bridge, err)
	}
	return nil
}

func linkUp(dev string) error {
	link, err := netlink.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("find %s: %w", dev, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", dev, err)
	}
	return nil
}

func addAddr(dev string, p netip.Prefix) error {
	link, err := netlink.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("find %s: %w", dev, err)
	}
	addr := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("add address %s to %s: %w", p, dev, err)
	}
	return nil
}

// deleteLinks removes every device that can be removed.
func deleteLinks() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, l := range links {
		if l.Type() != "veth" && l.Type() != "bridge" && l.Type() != "vxlan" {
			continue
		}
		if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("delete link %s: %w", l.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
