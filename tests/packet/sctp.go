package packet

import (
	"encoding/binary"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

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
	Error            Chunk = 9
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
	value := s.Payload
	if s.Chunk == Init || s.Chunk == InitAck {
		value = append(s.initiation(), s.Payload...)
	}
	head = binary.BigEndian.AppendUint16(head, uint16(4+len(value)))
	return append(head, value...)
}

// initiation is the fixed part of an INIT or INIT ACK (RFC 9260, 3.3.2).
func (s Spec) initiation() []byte {
	b := binary.BigEndian.AppendUint32(nil, s.InitTag)
	b = binary.BigEndian.AppendUint32(b, 1<<16) // window
	b = binary.BigEndian.AppendUint16(b, 10)    // outbound streams
	b = binary.BigEndian.AppendUint16(b, 10)    // inbound streams, at most
	return binary.BigEndian.AppendUint32(b, 1)  // TSN
}

// OutOfTheBlue is what answers frame, an SCTP packet of an association its receiver
// does not know: an ABORT with the tag that came, and SHUTDOWN COMPLETE for a
// SHUTDOWN ACK (RFC 9260, 8.4).
func OutOfTheBlue(frame []byte) ([]byte, error) {
	l2, l3, l4, err := turned(frame)
	if err != nil {
		return nil, err
	}
	in := &layers.SCTP{}
	if err := in.DecodeFromBytes(frame[l4:], gopacket.NilDecodeFeedback); err != nil {
		return nil, err
	}
	out := &layers.SCTP{SrcPort: in.DstPort, DstPort: in.SrcPort, VerificationTag: in.VerificationTag}
	chunk := gopacket.Payload{byte(Abort), 1, 0, 4}
	if Chunk(frame[l4+12]) == ShutdownAck {
		chunk[0] = byte(ShutdownComplete)
	}
	ip4, ip6 := ends(frame, l3)
	if ip4 != nil {
		ip4.Protocol = layers.IPProtocolSCTP
		return serialize(l2, ip4, out, chunk)
	}
	ip6.NextHeader = layers.IPProtocolSCTP
	return serialize(l2, ip6, out, chunk)
}
