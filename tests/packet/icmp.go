package packet

import (
	"encoding/binary"
	"fmt"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/ebb-lb/ebb/maps"
)

// quotedL4 is how much an error quotes of what follows the IP header.
const quotedL4 = 8

// TimeExceeded is the ICMP error that answers frame, which has neither tags,
// options nor extension headers, when its TTL has run out on the way: from the
// address frame was sent to, back to where it came from.
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

// icmpError builds the error of frame's family. rest is the second word of an
// ICMPv6 header; that of ICMPv4 is in v4.
func icmpError(frame []byte, v4 *layers.ICMPv4, v6 *layers.ICMPv6, rest uint32) ([]byte, error) {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	eth, ok := p.LinkLayer().(*layers.Ethernet)
	if !ok {
		return nil, fmt.Errorf("answer a frame without Ethernet header: %s", p)
	}
	back := &layers.Ethernet{SrcMAC: eth.DstMAC, DstMAC: eth.SrcMAC, EthernetType: eth.EthernetType}
	switch in := p.NetworkLayer().(type) {
	case *layers.IPv4:
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: in.DstIP, DstIP: in.SrcIP}
		quote := eth.Payload[:len(in.Contents)+quotedL4]
		return serialize(back, ip, v4, gopacket.Payload(quote))
	case *layers.IPv6:
		ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolICMPv6, SrcIP: in.DstIP, DstIP: in.SrcIP}
		if err := v6.SetNetworkLayerForChecksum(ip); err != nil {
			return nil, err
		}
		quote := eth.Payload[:len(in.Contents)+quotedL4]
		return serialize(back, ip, v6, gopacket.Payload(binary.BigEndian.AppendUint32(nil, rest)), gopacket.Payload(quote))
	}
	return nil, fmt.Errorf("answer a frame without IP header: %s", p)
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
