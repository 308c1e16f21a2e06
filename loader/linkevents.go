package loader

import (
	"fmt"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// linkEvents tells which devices have changed, in batches: what comes while the
// last batch is worked on is one batch.
type linkEvents struct {
	sock *nl.NetlinkSocket
	// changed are ifindexes, each once, in order; nil: anything may have changed.
	changed chan []int
	failed  chan error
	done    chan struct{}
}

// subscribeLinks subscribes in the network namespace of the calling thread.
func subscribeLinks() (*linkEvents, error) {
	sock, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		return nil, fmt.Errorf("subscribe to devices: %w", err)
	}
	e := &linkEvents{sock: sock, changed: make(chan []int), failed: make(chan error, 1), done: make(chan struct{})}
	heard := make(chan []int)
	go e.receive(heard)
	go e.gather(heard)
	return e, nil
}

func (e *linkEvents) close() {
	close(e.done)
	e.sock.Close() // ends receive
}

func (e *linkEvents) receive(heard chan<- []int) {
	for {
		msgs, lost, err := receiveBatch(e.sock)
		if err != nil {
			e.failed <- err
			return
		}
		var batch []int
		if !lost {
			batch = devicesOf(msgs)
		}
		select {
		case heard <- batch:
		case <-e.done:
			return
		}
	}
}

// gather merges what is heard until somebody takes it.
func (e *linkEvents) gather(heard <-chan []int) {
	var batch []int
	var out chan []int // nil: there is nothing to take
	lost := false
	for {
		select {
		case more := <-heard:
			lost = lost || more == nil
			for _, i := range more {
				if !slices.Contains(batch, i) {
					batch = append(batch, i)
				}
			}
			if lost {
				batch = nil
			}
			if out = e.changed; !lost && len(batch) == 0 {
				out = nil
			}
		case out <- batch:
			batch, out, lost = nil, nil, false
		case <-e.done:
			return
		}
	}
}

// devicesOf returns the devices that messages are about; never nil.
func devicesOf(msgs []syscall.NetlinkMessage) []int {
	out := []int{}
	for _, m := range msgs {
		if len(m.Data) >= unix.SizeofIfInfomsg {
			out = append(out, int(nl.DeserializeIfInfomsg(m.Data).Index))
		}
	}
	return out
}
