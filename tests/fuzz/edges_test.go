package fuzz

import (
	"encoding/binary"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
)

// edges are packets of known connections whose checksums come out, once they
// are translated, where arithmetic goes wrong: at the two zeros and next to
// them. One packet in thousands does so by chance.
func edges(tb testing.TB) [][]byte {
	tb.Helper()
	w := newWorld()
	var all [][]byte
	for _, d := range dialogues() {
		if d.proto == maps.SCTP {
			continue // a CRC has no edges
		}
		for _, reply := range []bool{false, true} {
			hook := maps.HookTCIngress
			if reply && !d.remote {
				hook = maps.HookTCEgress
			}
			for _, sum := range edgeSums() {
				in := bytesOf(tb, d.spec(reply, packet.ACK))
				aim(in, hook, w, sum)
				all = append(all, in)
			}
		}
	}
	return all
}

// edgeSums are the edges in either byte order: the programs add words as they
// lie in memory.
func edgeSums() []uint16 { return []uint16{0, 1, 0x0100, 0xfeff, 0xfffe} }

// aim changes frame so that its valid checksums become sum when it is
// translated: an unimportant word of what they cover is raised by what they lack.
func aim(frame []byte, hook maps.Hook, w *World, sum uint16) {
	p, _ := parse(frame)
	payload := len(frame) - len("of odd size")
	out := Translate(frame, hook, w).Frame(0)
	raise(frame, payload, binary.BigEndian.Uint16(out[p.check():]), sum)
	settle(frame, p.check(), 0, p.segment)
	if p.v4 {
		raise(frame, p.l3+4, binary.BigEndian.Uint16(out[p.l3+10:]), sum) // the identification
		settle(frame, p.l3+10, 0, p.network)
	}
}

// raise adds from-to to the word at, as checksums are added.
func raise(frame []byte, at int, from, to uint16) {
	word := uint32(binary.BigEndian.Uint16(frame[at:])) + uint32(from) + 0xffff - uint32(to)
	binary.BigEndian.PutUint16(frame[at:], uint16(word%0xffff))
}

func TestEdgesAreWhereTheyShouldBe(t *testing.T) {
	w := newWorld()
	summed := []maps.Proto{maps.TCP, maps.UDP}
	seen := make(map[maps.Proto]map[uint16]int)
	for _, proto := range summed {
		seen[proto] = make(map[uint16]int)
	}
	for _, frame := range edges(t) {
		p, _ := parse(frame)
		for _, hook := range uplinkHooks {
			if e := Translate(frame, hook, w); e.Verdict >= maps.VerdictToLocal {
				seen[p.key.Proto][binary.BigEndian.Uint16(e.Frame(0)[p.check():])]++
			}
		}
	}
	for _, proto := range summed {
		for _, sum := range edgeSums() {
			if sum == 0 && proto == maps.UDP {
				sum = 0xffff
			}
			if seen[proto][sum] == 0 {
				t.Errorf("no %s packet gets checksum %#x", proto, sum)
			}
		}
	}
}
