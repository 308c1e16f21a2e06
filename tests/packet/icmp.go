package packet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/ebb-lb/ebb/maps"
)

// quotedL4 is how much an error quotes of what follows the IP header.
const quotedL4 = 8

// TimeExceeded is the ICMP error that answers frame when its TTL has run out on
// the way: from the address frame was sent to, back to where it came from.
func TimeExceeded(frame []byte) ([]byte, error) {
	v4 := layers.CreateICMPv4TypeCode(layers.ICMPv4TypeTimeExceeded, layers.ICMPv4CodeTTLExceeded)
	v6 := layers.CreateICMPv6TypeCode(layers.ICMPv6TypeTimeExceeded, layers.ICMPv6CodeHopLimitExceeded)
	return icmpError(frame, &layers.ICMPv4{TypeCode: v4}, &layers.ICMPv6{TypeCode: v6}, 0)
}

// TooBig is the error that answers frame when the way on takes mtu bytes only.
func TooBig(frame []byte, mtu uint16) ([]byte, error) {
	v4 := layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodeFragmentationNeeded)
	v6 := layers.CreateICMPv6TypeCode(layers.ICMPv6TypePacketTooBig, 0)
	return icmpError(frame, &layers.ICMPv4{TypeCode: v4, Seq: mtu}, &layers.ICMPv6{TypeCode: v6}, uint32(mtu))
}

// PortUnreachable is the error that answers frame when nobody serves its port.
func PortUnreachable(frame []byte) ([]byte, error) {
	return Unreachable(frame, layers.ICMPv4CodePort, layers.ICMPv6CodePortUnreachable)
}

// Unreachable is the error of the type "destination unreachable" that answers
// frame, with the code of its family.
func Unreachable(frame []byte, code4, code6 uint8) ([]byte, error) {
	v4 := layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, code4)
	v6 := layers.CreateICMPv6TypeCode(layers.ICMPv6TypeDestinationUnreachable, code6)
	return icmpError(frame, &layers.ICMPv4{TypeCode: v4}, &layers.ICMPv6{TypeCode: v6}, 0)
}

// turned returns Ethernet header and tags of frame, with the MACs turned round, and
// where its IP header and what follows that begin.
func turned(frame []byte) (l2 gopacket.Payload, l3, l4 int, err error) {
	if len(frame) < 14 {
		return nil, 0, 0, fmt.Errorf("answer a frame of %d bytes", len(frame))
	}
	for l3 = 12; len(frame) > l3+2 && bytes.Equal(frame[l3:l3+2], []byte{0x81, 0}); l3 += 4 {
	}
	l3 += 2
	l2 = slices.Concat(frame[6:12], frame[:6], frame[12:l3])
	if l4, err = behindIP(frame[l3:]); err != nil {
		return nil, 0, 0, err
	}
	return l2, l3, l3 + l4, nil
}

// behindIP returns the length of the IP header b begins with, options and
// extension headers included.
func behindIP(b []byte) (int, error) {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return int(b[0]&0xf) * 4, nil
	case len(b) >= 40 && b[0]>>4 == 6:
		at, next := 40, layers.IPProtocol(b[6])
		for slices.Contains([]layers.IPProtocol{0, 43, 60}, next) && len(b) > at+1 {
			next, at = layers.IPProtocol(b[at]), at+8*(int(b[at+1])+1)
		}
		return at, nil
	}
	return 0, fmt.Errorf("answer a frame without IP header: %x", b)
}

// ends are the IP header of an answer to frame, without its protocol.
func ends(frame []byte, l3 int) (*layers.IPv4, *layers.IPv6) {
	ip := frame[l3:]
	if ip[0]>>4 == 4 {
		return &layers.IPv4{Version: 4, TTL: 64, SrcIP: ip[16:20], DstIP: ip[12:16]}, nil
	}
	return nil, &layers.IPv6{Version: 6, HopLimit: 64, SrcIP: ip[24:40], DstIP: ip[8:24]}
}

// icmpError builds the error of frame's family. rest is the second word of an
// ICMPv6 header; that of ICMPv4 is in v4.
func icmpError(frame []byte, v4 *layers.ICMPv4, v6 *layers.ICMPv6, rest uint32) ([]byte, error) {
	l2, l3, l4, err := turned(frame)
	if err != nil {
		return nil, err
	}
	quote := gopacket.Payload(frame[l3:min(l4+quotedL4, len(frame))])
	ip4, ip6 := ends(frame, l3)
	if ip4 != nil {
		ip4.Protocol = layers.IPProtocolICMPv4
		return serialize(l2, ip4, v4, quote)
	}
	ip6.NextHeader = layers.IPProtocolICMPv6
	if err := v6.SetNetworkLayerForChecksum(ip6); err != nil {
		return nil, err
	}
	return serialize(l2, ip6, v6, gopacket.Payload(binary.BigEndian.AppendUint32(nil, rest)), quote)
}

// Reset is the RST that answers frame, a TCP segment (RFC 9293, 3.10.7.1).
func Reset(frame []byte) ([]byte, error) {
	l2, l3, l4, err := turned(frame)
	if err != nil {
		return nil, err
	}
	in := &layers.TCP{}
	if err := in.DecodeFromBytes(frame[l4:end(frame, l3)], gopacket.NilDecodeFeedback); err != nil {
		return nil, err
	}
	out := &layers.TCP{SrcPort: in.DstPort, DstPort: in.SrcPort, RST: true, Seq: in.Ack}
	if !in.ACK {
		out.ACK, out.Seq, out.Ack = true, 0, in.Seq+uint32(len(in.Payload))
		for _, counts := range []bool{in.SYN, in.FIN} {
			if counts {
				out.Ack++
			}
		}
	}
	ip4, ip6 := ends(frame, l3)
	if ip4 != nil {
		ip4.Protocol = layers.IPProtocolTCP
		return serializeOn(out, ip4, l2, ip4)
	}
	ip6.NextHeader = layers.IPProtocolTCP
	return serializeOn(out, ip6, l2, ip6)
}

// end is where a packet ends in frame, which may be padded.
func end(frame []byte, l3 int) int {
	if frame[l3]>>4 == 4 {
		return l3 + int(binary.BigEndian.Uint16(frame[l3+2:]))
	}
	return l3 + 40 + int(binary.BigEndian.Uint16(frame[l3+4:]))
}

// serializeOn serializes tcp behind ls, the last of which is its network layer.
func serializeOn(tcp *layers.TCP, network gopacket.NetworkLayer, ls ...gopacket.SerializableLayer) ([]byte, error) {
	if err := tcp.SetNetworkLayerForChecksum(network); err != nil {
		return nil, err
	}
	return serialize(append(ls, tcp)...)
}

// Ping is an echo request from src to dst with the given payload.
func Ping(s Spec) ([]byte, error) { return echo(s, true) }

// Pong answers Ping(s).
func Pong(s Spec) ([]byte, error) {
	s.Src, s.Dst, s.SrcMAC, s.DstMAC, s.TTL = s.Dst, s.Src, s.DstMAC, s.SrcMAC, 64
	return echo(s, false)
}

func echo(s Spec, request bool) ([]byte, error) {
	s.Proto = protoICMP(s.IsIPv4())
	t4, t6 := layers.ICMPv4TypeEchoReply, layers.ICMPv6TypeEchoReply
	if request {
		t4, t6 = layers.ICMPv4TypeEchoRequest, layers.ICMPv6TypeEchoRequest
	}
	ls := s.ethernet()
	ip, network := s.network()
	ls = append(ls, ip...)
	if s.IsIPv4() {
		v4 := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(uint8(t4), 0), Id: 7, Seq: 1}
		return serialize(append(ls, v4, gopacket.Payload(s.Payload))...)
	}
	v6 := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(uint8(t6), 0)}
	if err := v6.SetNetworkLayerForChecksum(network); err != nil {
		return nil, err
	}
	return serialize(append(ls, v6, gopacket.Payload{0, 7, 0, 1}, gopacket.Payload(s.Payload))...)
}

func protoICMP(v4 bool) maps.Proto {
	if v4 {
		return maps.Proto(layers.IPProtocolICMPv4)
	}
	return maps.Proto(layers.IPProtocolICMPv6)
}

// ICMP is a message of ICMP or ICMPv6, whichever is of the family of the
// addresses in its Spec, whose ports and transport fields do not count.
type ICMP struct {
	Spec
	Type, Code uint8
	Rest       uint32 // second word of the header
	Quote      []byte // what follows the header
}

// Bytes serializes m, lengths and checksums filled in.
func (m ICMP) Bytes() ([]byte, error) {
	m.Proto = maps.Proto(layers.IPProtocolICMPv4)
	if !m.IsIPv4() {
		m.Proto = maps.Proto(layers.IPProtocolICMPv6)
	}
	ls := m.ethernet()
	ip, network := m.network()
	ls = append(ls, ip...)
	frame, err := serialize(append(append(ls, m.message(network)...), gopacket.Payload(m.Quote))...)
	if err != nil {
		return nil, fmt.Errorf("serialize ICMP message %s > %s: %w", m.Src, m.Dst, err)
	}
	return frame, nil
}

func (m ICMP) message(network gopacket.NetworkLayer) []gopacket.SerializableLayer {
	if m.IsIPv4() {
		v4 := layers.CreateICMPv4TypeCode(m.Type, m.Code)
		return []gopacket.SerializableLayer{&layers.ICMPv4{TypeCode: v4, Id: uint16(m.Rest >> 16), Seq: uint16(m.Rest)}}
	}
	v6 := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(m.Type, m.Code)}
	_ = v6.SetNetworkLayerForChecksum(network) // refuses only what is no network layer
	return []gopacket.SerializableLayer{v6, gopacket.Payload(binary.BigEndian.AppendUint32(nil, m.Rest))}
}

// serialize fills in lengths and checksums.
func serialize(ls ...gopacket.SerializableLayer) ([]byte, error) {
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, ls...); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
