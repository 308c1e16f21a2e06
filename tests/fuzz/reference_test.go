package fuzz

import (
	"fmt"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// The reference makes of a frame what a serializer makes of the translated
// description: its checksums are not only consistent with themselves.
func TestReferenceAgreesWithASerializer(t *testing.T) {
	w := newWorld()
	for _, d := range dialogues() {
		for _, reply := range []bool{false, true} {
			in := d.spec(reply, packet.ACK)
			hook := maps.HookTCIngress
			if reply && !d.remote {
				hook = maps.HookTCEgress
			}
			got := Translate(bytesOf(t, in), hook, w).Frame(0)
			if diff := packet.Diff(bytesOf(t, d.translated(in, reply)), got); diff != "" {
				t.Errorf("%v, reply %t:\n%s", d, reply, diff)
			}
		}
	}
}

// translated is in as it leaves the node.
func (d dialogue) translated(in packet.Spec, reply bool) packet.Spec {
	in.Src, in.Dst = d.source, d.backend
	next := rig.OtherMAC
	if reply {
		in.Src, in.Dst = d.vip, d.client
		next = rig.GatewayMAC
	}
	if d.remote {
		in.TTL, in.SrcMAC, in.DstMAC = 63, rig.NodeMAC, next
	}
	return in
}

// What is refused is answered as RFC 792 and RFC 4443 say.
func TestReferenceAnswersWithValidErrors(t *testing.T) {
	w := newWorld()
	for _, f := range families() {
		in := f.dialogue(maps.UDP, strangerPort, true).spec(false, 0)
		in.TTL = 1
		got := Translate(bytesOf(t, in), maps.HookTCIngress, w).Frame(0)
		if err := validError(got, in); err != nil {
			t.Errorf("%s: %v", f.vip, err)
		}
	}
}

// validError checks that frame is an ICMP error to the sender of in whose
// checksums a serializer would have computed the same.
func validError(frame []byte, in packet.Spec) error {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if p.ErrorLayer() != nil {
		return fmt.Errorf("%v", p.ErrorLayer().Error())
	}
	if got, want := p.NetworkLayer().NetworkFlow().Dst().String(), in.Src.Addr().String(); got != want {
		return fmt.Errorf("it goes to %s, not to %s", got, want)
	}
	again, err := serialized(p)
	if err != nil {
		return err
	}
	if diff := packet.Diff(again, frame); diff != "" {
		return fmt.Errorf("a serializer makes another one:\n%s", diff)
	}
	return nil
}

// serialized serializes the layers of p anew.
func serialized(p gopacket.Packet) ([]byte, error) {
	if icmp, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok {
		if err := icmp.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
			return nil, err
		}
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializePacket(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, p)
	return buf.Bytes(), err
}
