package loader

import (
	"net"
	"path"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// PodChoice says which devices are pods' links: the node's ends of their
// devices. The zero value chooses none. Uplinks are never chosen.
type PodChoice struct {
	// Patterns are of names, as [path.Match] takes them; a malformed one matches nothing.
	Patterns []string
	// Auto chooses beside them devices that look like a pod's link: with Prefix
	// those whose names begin so; with Bridge its ports, as far as they lead to
	// pods or virtual machines; else veths whose other end is in another network
	// namespace.
	Auto           bool
	Prefix, Bridge string
	// OnDemand chooses them only while somebody needs it, see [PodLinks.Need].
	OnDemand bool
}

// Any reports whether c may choose a device at all.
func (c PodChoice) Any() bool { return c.Auto || len(c.Patterns) > 0 }

// wants reports whether dev, whose master has this name, is a pod's link.
func (c PodChoice) wants(dev netlink.Link, master string) bool {
	if dev.Attrs().Flags&net.FlagLoopback != 0 {
		return false
	}
	return c.matches(dev.Attrs().Name) || c.Auto && c.discovers(dev, master)
}

func (c PodChoice) matches(name string) bool {
	return slices.ContainsFunc(c.Patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil
	})
}

// names reports whether c says by its name that a device leads to pods: as a pod's
// link, or as their bridge. Looks alone do not tell: a node in a container has a
// veth for its NIC.
func (c PodChoice) names(name string) bool {
	return c.matches(name) || c.Prefix != "" && strings.HasPrefix(name, c.Prefix) || c.Bridge != "" && name == c.Bridge
}

func (c PodChoice) discovers(dev netlink.Link, master string) bool {
	switch {
	case c.Prefix != "":
		return strings.HasPrefix(dev.Attrs().Name, c.Prefix)
	case c.Bridge != "":
		// Other ports are the way to other machines.
		return master == c.Bridge && (dev.Type() == "veth" || dev.Type() == "tuntap")
	}
	return dev.Type() == "veth" && dev.Attrs().NetNsID >= 0
}
