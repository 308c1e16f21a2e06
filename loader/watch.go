package loader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// settle is how long Watch collects further changes before it calls back: a
// device that appears comes as several messages.
const settle = 50 * time.Millisecond

// Watch calls changed once when the subscription stands, and after that whenever
// devices, addresses, or routes by gateways have changed, several changes at a time.
// Calls do not overlap; a change during a call leads to another call. Watch
// blocks until ctx ends, which is no error.
func Watch(ctx context.Context, changed func()) error {
	sock, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return fmt.Errorf("watch devices: subscribe: %w", err)
	}
	events := make(chan struct{}, 1)
	failed := make(chan error, 1)
	go func() { failed <- receive(sock, events) }()

	changed()
	err = coalesce(ctx, events, failed, changed)
	sock.Close() // ends receive
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("watch devices: %w", err)
}

// receive signals relevant messages on events until the socket is closed.
func receive(sock *nl.NetlinkSocket, events chan<- struct{}) error {
	for {
		msgs, lost, err := receiveBatch(sock)
		if err != nil {
			return err
		}
		if !lost && !anyRelevant(msgs) {
			continue
		}
		select {
		case events <- struct{}{}:
		default: // one is pending already
		}
	}
}

// receiveBatch waits for messages. lost: there were more than the kernel could
// keep, so anything may have changed.
func receiveBatch(sock *nl.NetlinkSocket) (msgs []syscall.NetlinkMessage, lost bool, err error) {
	for {
		msgs, _, err = sock.Receive()
		switch {
		case err == nil:
			return msgs, false, nil
		case errors.Is(err, unix.ENOBUFS):
			return nil, true, nil
		case !errors.Is(err, unix.EINTR):
			return nil, false, fmt.Errorf("receive: %w", err)
		}
	}
}

// follow calls tell with all messages of a subscription, one call at a time, until ctx ends,
// which is no error. It closes the socket.
func follow(ctx context.Context, sock *nl.NetlinkSocket, tell func(msgs []syscall.NetlinkMessage, lost bool)) error {
	stop := context.AfterFunc(ctx, sock.Close)
	defer func() {
		if stop() {
			sock.Close()
		}
	}()
	for {
		msgs, lost, err := receiveBatch(sock)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		tell(msgs, lost)
	}
}

// anyRelevant reports whether msgs can change which devices are uplinks. Routes
// without a gateway come and go with every pod, in tables other than the main one
// by what somebody does with them.
func anyRelevant(msgs []syscall.NetlinkMessage) bool {
	for _, m := range msgs {
		switch m.Header.Type {
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			if routeLeadsOutside(m.Data) {
				return true
			}
		default:
			return true
		}
	}
	return false
}

// routeLeadsOutside reports whether msg, of a route, is about a default route or one
// by a gateway.
func routeLeadsOutside(msg []byte) bool {
	if len(msg) < unix.SizeofRtMsg {
		return false
	}
	rt := nl.DeserializeRtMsg(msg)
	if rt.Table != unix.RT_TABLE_MAIN {
		return false
	}
	if rt.Dst_len == 0 {
		return true
	}
	attrs, err := nl.ParseRouteAttr(msg[unix.SizeofRtMsg:])
	if err != nil {
		return true
	}
	return slices.ContainsFunc(attrs, func(a syscall.NetlinkRouteAttr) bool {
		switch a.Attr.Type {
		case unix.RTA_GATEWAY, unix.RTA_VIA, unix.RTA_MULTIPATH:
			return true
		}
		return false
	})
}

// coalesce calls changed for every burst of events.
func coalesce(ctx context.Context, events <-chan struct{}, failed <-chan error, changed func()) error {
	var burst <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			return err
		case <-events:
			if burst == nil {
				burst = time.After(settle)
			}
		case <-burst:
			burst = nil
			changed()
		}
	}
}
