// Package packet builds the frames of the packet tests and tells how two of
// them differ. Expected frames are built by the same serializer as input, with
// checksums on, so that a wrong checksum is a difference like any other.
package packet

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/ebb-lb/ebb/maps"
)

// Flags are TCP flags as they stand in the header.
type Flags uint8

// The TCP flags the datapath looks at, and PSH.
const (
	FIN Flags = 0x01
	SYN Flags = 0x02
	RST Flags = 0x04
	PSH Flags = 0x08
	ACK Flags = 0x10
)

// Spec describes a frame. It is a value: tests copy it and change what they
// expect to be changed.
type Spec struct {
	SrcMAC, DstMAC net.HardwareAddr
	VLANs          []uint16 // outermost first
	Src, Dst       netip.AddrPort
	Proto          maps.Proto
	TTL            uint8 // 0: 64
	TOS            uint8

	MayFragment bool // IPv4: DF is clear

	IPOptions  []byte // IPv4, a multiple of 4 bytes
	HopByHop   bool   // IPv6: a hop-by-hop header, and
	DstOptions int    // that many destination option headers after it, and
	Extensions []Extension

	Flags    Flags // TCP
	Seq, Ack uint32

	Chunk     Chunk // SCTP: the only one
	Reflected bool  // ... with the T bit
	Tag       uint32
	InitTag   uint32 // INIT, INIT ACK: what its sender wants to find in the packets to it

	NoChecksum bool // UDP: the field is 0, "no checksum"
	Payload    []byte
}

// Extension is an IPv6 extension header of 8 bytes: its type, and what follows
// the byte that names the next header.
type Extension struct {
	Type uint8
	Data [7]byte
}

// Reply returns the spec of an answer to s: addresses and MACs turned round.
func (s Spec) Reply() Spec {
	s.Src, s.Dst = s.Dst, s.Src
	s.SrcMAC, s.DstMAC = s.DstMAC, s.SrcMAC
	s.Seq, s.Ack = s.Ack, s.Seq
	return s
}

// IsIPv4 reports the family of the frame.
func (s Spec) IsIPv4() bool { return s.Dst.Addr().Is4() }

// L3 is where the IP header begins in the frame of s.
func (s Spec) L3() int { return 14 + 4*len(s.VLANs) }

// L4 is where the transport header begins.
func (s Spec) L4() int {
	if s.IsIPv4() {
		return s.L3() + 20 + len(s.IPOptions)
	}
	return s.L3() + 40 + 8*len(s.chain())
}

// Bytes serializes s, lengths and checksums filled in.
func (s Spec) Bytes() ([]byte, error) {
	var ls []gopacket.SerializableLayer
	ls = append(ls, s.ethernet()...)
	ip, network := s.network()
	ls = append(ls, ip...)
	transport, err := s.transport(network)
	if err != nil {
		return nil, err
	}
	ls = append(ls, transport, gopacket.Payload(s.body()))
	frame, err := serialize(ls...)
	if err != nil {
		return nil, fmt.Errorf("serialize %s > %s: %w", s.Src, s.Dst, err)
	}
	if s.NoChecksum {
		at := s.L4() + 6
		frame[at], frame[at+1] = 0, 0
	}
	return frame, nil
}

func (s Spec) flags4() layers.IPv4Flag {
	if s.MayFragment {
		return 0
	}
	return layers.IPv4DontFragment
}

func (s Spec) ethernet() []gopacket.SerializableLayer {
	types := make([]layers.EthernetType, 0, len(s.VLANs)+1)
	for range s.VLANs {
		types = append(types, layers.EthernetTypeDot1Q)
	}
	if s.IsIPv4() {
		types = append(types, layers.EthernetTypeIPv4)
	} else {
		types = append(types, layers.EthernetTypeIPv6)
	}
	ls := []gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: s.SrcMAC, DstMAC: s.DstMAC, EthernetType: types[0]},
	}
	for i, id := range s.VLANs {
		ls = append(ls, &layers.Dot1Q{VLANIdentifier: id, Type: types[i+1]})
	}
	return ls
}

func (s Spec) network() ([]gopacket.SerializableLayer, gopacket.NetworkLayer) {
	ttl := s.TTL
	if ttl == 0 {
		ttl = 64
	}
	if s.IsIPv4() {
		ip := &layers.IPv4{
			Version: 4, TTL: ttl, TOS: s.TOS, Id: 1, Flags: s.flags4(),
			Protocol: layers.IPProtocol(s.Proto),
			SrcIP:    s.Src.Addr().AsSlice(), DstIP: s.Dst.Addr().AsSlice(),
		}
		if len(s.IPOptions) > 0 {
			ip.Options = []layers.IPv4Option{{
				OptionType: s.IPOptions[0], OptionLength: uint8(len(s.IPOptions)), OptionData: s.IPOptions[2:],
			}}
		}
		return []gopacket.SerializableLayer{ip}, ip
	}
	ip := &layers.IPv6{
		Version: 6, HopLimit: ttl, TrafficClass: s.TOS, NextHeader: layers.IPProtocol(s.Proto),
		SrcIP: s.Src.Addr().AsSlice(), DstIP: s.Dst.Addr().AsSlice(),
	}
	return append([]gopacket.SerializableLayer{ip}, s.extensions(ip)...), ip
}

// extensions are raw bytes: gopacket lays out IPv6 options its own way.
func (s Spec) extensions(ip *layers.IPv6) []gopacket.SerializableLayer {
	chain := s.chain()
	if len(chain) == 0 {
		return nil
	}
	ip.NextHeader = layers.IPProtocol(chain[0].Type)
	var raw gopacket.Payload
	for i, e := range chain {
		next := uint8(s.Proto)
		if i+1 < len(chain) {
			next = chain[i+1].Type
		}
		raw = append(append(raw, next), e.Data[:]...)
	}
	return []gopacket.SerializableLayer{raw}
}

func (s Spec) chain() []Extension {
	padN := [7]byte{0, 1, 4}
	var chain []Extension
	if s.HopByHop {
		chain = append(chain, Extension{uint8(layers.IPProtocolIPv6HopByHop), padN})
	}
	for range s.DstOptions {
		chain = append(chain, Extension{uint8(layers.IPProtocolIPv6Destination), padN})
	}
	return append(chain, s.Extensions...)
}

func (s Spec) transport(network gopacket.NetworkLayer) (gopacket.SerializableLayer, error) {
	switch s.Proto {
	case maps.TCP:
		tcp := &layers.TCP{
			SrcPort: layers.TCPPort(s.Src.Port()), DstPort: layers.TCPPort(s.Dst.Port()),
			Seq: s.Seq, Ack: s.Ack, Window: 1024,
			FIN: s.Flags&FIN != 0, SYN: s.Flags&SYN != 0, RST: s.Flags&RST != 0,
			PSH: s.Flags&PSH != 0, ACK: s.Flags&ACK != 0,
		}
		return tcp, tcp.SetNetworkLayerForChecksum(network)
	case maps.UDP:
		udp := &layers.UDP{SrcPort: layers.UDPPort(s.Src.Port()), DstPort: layers.UDPPort(s.Dst.Port())}
		return udp, udp.SetNetworkLayerForChecksum(network)
	case maps.SCTP:
		return &layers.SCTP{
			SrcPort: layers.SCTPPort(s.Src.Port()), DstPort: layers.SCTPPort(s.Dst.Port()), VerificationTag: s.Tag,
		}, nil
	}
	return nil, fmt.Errorf("protocol %s is not supported", s.Proto)
}

// Diff describes how two frames differ, "" if they do not.
func Diff(want, got []byte) string {
	if string(want) == string(got) {
		return ""
	}
	return fmt.Sprintf("want %s\ngot  %s\nwant dump:\n%sgot dump:\n%s",
		describe(want), describe(got), hex.Dump(want), hex.Dump(got))
}

func describe(frame []byte) string {
	return gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default).String()
}
