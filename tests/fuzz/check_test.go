package fuzz

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"testing"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/packet"
	"github.com/ebb-lb/ebb/tests/rig"
)

// maxFrame is as much of an input as is run: no header goes further, and the
// kernel takes no more than a page.
const maxFrame = 2048

// clip makes frame one that the kernel runs programs on.
func clip(frame []byte) []byte {
	for len(frame) < etherLen {
		frame = append(frame[:len(frame):len(frame)], 0)
	}
	return frame[:min(len(frame), maxFrame)]
}

// runs reports whether the kernel gives frame to a program of hook: Linux 6.18
// makes no test skb of a frame that ends within its IP header.
func runs(hook maps.Hook, frame []byte) bool {
	switch binary.BigEndian.Uint16(frame[etherLen-2:]) {
	case 0x0800:
		return hook == maps.HookXDP || len(frame) >= etherLen+ipv4Len
	case 0x86dd:
		return hook == maps.HookXDP || len(frame) >= etherLen+ipv6Len
	}
	return true
}

// check runs frame through every hook, each time in the world as it was in the
// beginning, and compares with the reference. It returns the verdicts.
func (p *pair) check(tb testing.TB, frame []byte) map[maps.Hook]maps.Verdict {
	tb.Helper()
	verdicts := make(map[maps.Hook]maps.Verdict)
	frame = clip(frame)
	for _, hook := range uplinkHooks {
		if !runs(hook, frame) || p.world.mayBeGuest(frame) {
			continue
		}
		p.restore(tb)
		want := Translate(frame, hook, p.world)
		port := p.checkHook(tb, hook, frame, want)
		p.checkAnswer(tb, hook, frame, want, port)
		verdicts[hook] = want.Verdict
	}
	return verdicts
}

// checkAnswer sends the answer to a frame that began a connection.
func (p *pair) checkAnswer(tb testing.TB, hook maps.Hook, frame []byte, want Expectation, port uint16) {
	tb.Helper()
	if !want.Begins || want.Verdict != maps.VerdictToLocal && want.Verdict != maps.VerdictToRemote {
		return
	}
	remote := want.Verdict == maps.VerdictToRemote
	if remote && !behindGateway(frame) {
		return
	}
	if !remote {
		hook = maps.HookTCEgress
	}
	answer, world := p.world.Answer(frame, want.Frame(port), remote)
	if runs(hook, answer) {
		p.checkHook(tb, hook, answer, Translate(answer, hook, world))
	}
}

// behindGateway reports whether the answer to frame goes by the gateway, as
// surely not to each address that a mutation makes.
func behindGateway(frame []byte) bool {
	p, _ := parseFirst(frame)
	return slices.ContainsFunc(families(), func(f family) bool { return f.client == p.key.Src.Addr() })
}

// checkHook sends frame twice: a packet that is sent again becomes the same,
// by what was remembered the first time. It returns the source port it got.
func (p *pair) checkHook(tb testing.TB, hook maps.Hook, frame []byte, want Expectation) (port uint16) {
	tb.Helper()
	for range 2 {
		got := p.rig.Run(tb, hook, frame)
		if port == 0 && want.PortAt > 0 {
			port = learn(tb, hook, frame, want, got)
		}
		p.same(tb, hook, frame, want, got, port)
	}
	return port
}

// learn returns the source port that the programs chose.
func learn(tb testing.TB, hook maps.Hook, frame []byte, want Expectation, got rig.Result) uint16 {
	tb.Helper()
	if len(got.Frame) < want.PortAt+2 {
		tb.Fatalf("%s: no source port is left in\n%s", hook, hex.Dump(got.Frame))
	}
	port := binary.BigEndian.Uint16(got.Frame[want.PortAt:])
	if got.Verdict == want.Verdict && (port < snatMin || port > snatMax) {
		tb.Fatalf("%s chose source port %d, out of range, for\n%s", hook, port, hex.Dump(frame))
	}
	return port
}

func (p *pair) same(tb testing.TB, hook maps.Hook, frame []byte, want Expectation, got rig.Result, port uint16) {
	tb.Helper()
	if slices.Contains(want.Also, got.Verdict) {
		return
	}
	if got.Verdict != want.Verdict || got.Action != want.Action {
		tb.Fatalf("%s: %s and %s, want %s and %s, for\n%s",
			hook, got.Action, got.Verdict, want.Action, want.Verdict, hex.Dump(frame))
	}
	if want.Action == rig.Drop {
		return // nobody sees it
	}
	w := want.Frame(port)
	if d := packet.Diff(w, want.tolerate(frame, w, got.Frame)); d != "" {
		tb.Fatalf("%s makes another frame of\n%s\n%s", hook, hex.Dump(frame), d)
	}
}

// tolerate returns got with what e leaves open as it is in want.
func (e Expectation) tolerate(in, want, got []byte) []byte {
	if len(got) != len(want) {
		return got
	}
	out := slices.Clone(got)
	if e.Neighbour && bytes.Equal(got[:12], in[:12]) {
		copy(out, want[:12])
	}
	for _, at := range e.Ambiguous {
		if binary.BigEndian.Uint16(got[at:])%0xffff == binary.BigEndian.Uint16(want[at:])%0xffff {
			copy(out[at:at+2], want[at:])
		}
	}
	return out
}
