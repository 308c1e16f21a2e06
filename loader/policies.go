package loader

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	stdmaps "maps"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Policies are the kernel's IPsec policies (xfrm) of the caller's network namespace.
type Policies struct{}

// Secured returns to which addresses packets may leave encrypted only, or not at all:
// the destinations of policies for what leaves, whatever else these ask for. It is
// sorted, and empty on a kernel without IPsec.
func (Policies) Secured() ([]netip.Prefix, error) {
	req := nl.NewNetlinkRequest(nl.XFRM_MSG_GETPOLICY, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(netlink.FAMILY_ALL))
	found := make(map[netip.Prefix]bool)
	err := req.ExecuteIter(unix.NETLINK_XFRM, nl.XFRM_MSG_NEWPOLICY, func(msg []byte) bool {
		for _, p := range securedBy(msg) {
			found[p] = true
		}
		return true
	})
	if withoutXfrm(err) {
		return nil, nil
	}
	// One that was interrupted lacks what has changed meanwhile: that is told.
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list IPsec policies: %w", err)
	}
	return slices.SortedFunc(stdmaps.Keys(found), netip.Prefix.Compare), nil
}

// Watch calls tell once the subscription stands, and after each change of a policy, one
// call at a time. It blocks until ctx ends, which is no error; on a kernel without
// IPsec it does nothing else.
func (Policies) Watch(ctx context.Context, tell func()) error {
	sock, err := nl.Subscribe(unix.NETLINK_XFRM, nl.XFRMNLGRP_POLICY)
	if withoutXfrm(err) {
		<-ctx.Done()
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch IPsec policies: subscribe: %w", err)
	}
	tell()
	err = follow(ctx, sock, func([]syscall.NetlinkMessage, bool) { tell() })
	if err != nil {
		return fmt.Errorf("watch IPsec policies: %w", err)
	}
	return nil
}

// withoutXfrm reports whether err says that the kernel has no IPsec.
func withoutXfrm(err error) bool {
	return errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT)
}

// securedBy returns the destinations of a policy, a message without its header, if it
// keeps packets that leave from being sent as they are.
func securedBy(msg []byte) []netip.Prefix {
	if len(msg) < nl.SizeofXfrmUserpolicyInfo {
		return nil
	}
	p := nl.DeserializeXfrmUserpolicyInfo(msg)
	attrs, err := nl.ParseRouteAttr(msg[nl.SizeofXfrmUserpolicyInfo:])
	if netlink.Dir(p.Dir) != netlink.XFRM_DIR_OUT || err == nil && !secures(p.Action, attrs) {
		return nil
	}
	return selected(&p.Sel)
}

// secures reports whether a policy encrypts or blocks what it is for, and is for packets
// that are sent by programs: these have no mark and belong to no xfrm interface, which
// encrypts what is sent by it.
func secures(action uint8, attrs []syscall.NetlinkRouteAttr) bool {
	does := netlink.PolicyAction(action) == netlink.XFRM_POLICY_BLOCK
	for _, a := range attrs {
		switch a.Attr.Type {
		case nl.XFRMA_TMPL:
			does = does || len(a.Value) > 0
		case nl.XFRMA_IF_ID:
			if len(a.Value) >= 4 && binary.NativeEndian.Uint32(a.Value) != 0 {
				return false
			}
		case nl.XFRMA_MARK:
			if len(a.Value) >= nl.SizeofXfrmMark {
				if m := nl.DeserializeXfrmMark(a.Value); m.Value&m.Mask != 0 {
					return false
				}
			}
		}
	}
	return does
}

// selected returns the destinations of a selector: of both families if it names none.
func selected(s *nl.XfrmSelector) []netip.Prefix {
	switch s.Family {
	case unix.AF_INET:
		return prefixOf(netip.AddrFrom4([4]byte(s.Daddr[:4])), s.PrefixlenD)
	case unix.AF_INET6:
		return prefixOf(netip.AddrFrom16(s.Daddr), s.PrefixlenD)
	}
	return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
}

func prefixOf(addr netip.Addr, bits uint8) []netip.Prefix {
	p, err := addr.Prefix(int(bits))
	if err != nil || addr.Is4In6() {
		return nil
	}
	return []netip.Prefix{p}
}
