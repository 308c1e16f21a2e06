package packet

import (
	"encoding/binary"

	"github.com/ebb-lb/ebb/maps"
)

// Chunk is the type of an SCTP chunk (RFC 9260, 3.2).
type Chunk uint8

// The chunks an association begins and ends with, and some of those between.
const (
	Data             Chunk = 0
	Init             Chunk = 1
	InitAck          Chunk = 2
	Heartbeat        Chunk = 4
	Abort            Chunk = 6
	Shutdown         Chunk = 7
	ShutdownAck      Chunk = 8
	CookieEcho       Chunk = 10
	CookieAck        Chunk = 11
	ShutdownComplete Chunk = 14
)

// body is what follows the header: the payload, of SCTP as the value of a chunk.
// It is not filled up to four bytes, so that a packet may have any length.
func (s Spec) body() []byte {
	if s.Proto != maps.SCTP {
		return s.Payload
	}
	head := []byte{byte(s.Chunk), 0}
	if s.Reflected {
		head[1] = 1
	}
	head = binary.BigEndian.AppendUint16(head, uint16(4+len(s.Payload)))
	return append(head, s.Payload...)
}
