package loader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// RouteNews is what has happened to routes and neighbours.
type RouteNews struct {
	// Changed: a route, a rule, a device or an address has changed, so any route
	// may lead elsewhere now.
	Changed bool
	// Multipath: a route with several paths is among the changes.
	Multipath bool
	// Rules: a rule is among the changes.
	Rules bool
	// Neighbours are those that are not what they were.
	Neighbours []Neighbour
	// Lost: more has happened than could be heard of.
	Lost bool
}

// rtaNexthop is RTA_NH_ID of linux/rtnetlink.h.
const rtaNexthop = 30

// routeBuffer is how many bytes of news the kernel keeps for a subscriber.
const routeBuffer = 1 << 20

// WatchRoutes calls tell with an empty RouteNews once the subscription stands, and
// then with all news, one call at a time. It blocks until ctx ends, which is no
// error.
func WatchRoutes(ctx context.Context, tell func(RouteNews)) error {
	sock, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
		unix.RTNLGRP_NEXTHOP, unix.RTNLGRP_NEIGH)
	if err != nil {
		return fmt.Errorf("watch routes: subscribe: %w", err)
	}
	// Less is enough where forcing it is not allowed: what is lost is made up for.
	_ = sock.SetReceiveBufferSize(routeBuffer, true)
	tell(RouteNews{})
	err = follow(ctx, sock, func(msgs []syscall.NetlinkMessage, lost bool) {
		news := routeNews(msgs)
		news.Lost = lost
		if news.Changed || lost || len(news.Neighbours) > 0 {
			tell(news)
		}
	})
	if err != nil {
		return fmt.Errorf("watch routes: %w", err)
	}
	return nil
}

// routeNews says what messages mean.
func routeNews(msgs []syscall.NetlinkMessage) RouteNews {
	var news RouteNews
	for _, m := range msgs {
		switch m.Header.Type {
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			if n, ok := parseNeighbour(m.Data); ok {
				n.Valid = n.Valid && m.Header.Type == unix.RTM_NEWNEIGH
				news.Neighbours = append(news.Neighbours, n)
			}
		default:
			news.Changed = true
			news.Rules = news.Rules || m.Header.Type == unix.RTM_NEWRULE || m.Header.Type == unix.RTM_DELRULE
			news.Multipath = news.Multipath || m.Header.Type == unix.RTM_NEWROUTE && isMultipath(m.Data)
		}
	}
	return news
}

// isMultipath reports whether a route, a message without its header, may have several
// paths. A kernel that is told to (net.ipv4.nexthop_compat_mode) only names the nexthop
// object that has them.
func isMultipath(msg []byte) bool {
	if len(msg) < unix.SizeofRtMsg {
		return false
	}
	attrs, err := nl.ParseRouteAttr(msg[unix.SizeofRtMsg:])
	if err != nil {
		return true
	}
	var object, device bool
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.RTA_MULTIPATH:
			return true
		case rtaNexthop:
			object = true
		case unix.RTA_OIF:
			device = true
		}
	}
	return object && !device
}

// AnyMultipath reports whether a route of the caller's network namespace, in whichever
// table, may have several paths.
func AnyMultipath() (bool, error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		req := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
		req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(family)}})
		found := false
		// A dump that was interrupted lacks what has changed meanwhile: that is told.
		err := req.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE, func(msg []byte) bool {
			found = found || isMultipath(msg)
			return true
		})
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return false, fmt.Errorf("list routes: %w", err)
		}
		if found {
			return true, nil
		}
	}
	return false, nil
}

// AnyBySource reports whether a rule of the caller's network namespace looks at where a
// packet comes from: its address, or its device.
func AnyBySource() (bool, error) {
	rules, err := dump(func() ([]netlink.Rule, error) { return netlink.RuleList(netlink.FAMILY_ALL) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return false, nil // a kernel without rules
	}
	if err != nil {
		return false, fmt.Errorf("list rules of routing: %w", err)
	}
	return slices.ContainsFunc(rules, func(r netlink.Rule) bool { return r.Src != nil || r.IifName != "" }), nil
}
