// Package sockets ends what programs of this node have with backends that are
// gone, and with services that they connected to before these were there. Programs
// on sockets give them a backend when they connect; no packet of theirs is looked at
// afterwards, so nothing else would tell them.
package sockets

import (
	"github.com/ebb-lb/ebb/loader/sockdiag"
	"github.com/ebb-lb/ebb/maps"
)

// Entry is one of the map sockets.
type Entry struct {
	Key  maps.SocketKey
	Peer maps.SocketPeer
}

// Leaves reports whether who has e must leave the backend. Datagrams leave one
// that is gone, and one that no longer serves while others do. Connections leave
// only one that is gone, and only if they are to be reset. The address of one that has
// moved to another node, or from there, still leads to it.
func (e Entry) Leaves(backends map[maps.BackendID]maps.Backend, resetTCP bool) bool {
	b, known := backends[e.Peer.Backend]
	gone := !known || b.State == maps.Gone && !b.Moved || b.Generation != e.Peer.Generation
	switch e.Key.Proto {
	case maps.UDP:
		return gone || b.Unserving
	case maps.TCP:
		return gone && resetTCP
	}
	return false
}

// place is where sockets can be listed together.
type place struct {
	netns uint64
	proto maps.Proto
}

// Fate is what becomes of sockets, and of their entries.
type Fate struct {
	// Close are the sockets to close, with the entries that are then of no use.
	Close map[uint64]Closing
	// Vanished are entries of sockets that are not there any more.
	Vanished []maps.SocketKey
}

// Closing is a socket to close.
type Closing struct {
	Socket  sockdiag.Socket
	Entries []maps.SocketKey
}

// Decide tells what becomes of the entries, all of which are to leave, given the
// sockets there are. A socket is closed if it is connected to the backend of an
// entry that says so. Others stay, with their entries: an unconnected one goes to
// another backend by itself, and may still be answered by this one.
func Decide(entries []Entry, sockets map[uint64]sockdiag.Socket) Fate {
	f := Fate{Close: make(map[uint64]Closing)}
	for _, e := range entries {
		s, there := sockets[e.Key.Cookie]
		switch {
		case !there:
			f.Vanished = append(f.Vanished, e.Key)
		case e.Key.Way == maps.SocketBackend && s.Peer == e.Key.Addr:
			f.Close[s.Cookie] = Closing{Socket: s, Entries: append(f.Close[s.Cookie].Entries, e.Key)}
		}
	}
	return f
}
