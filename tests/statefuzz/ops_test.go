package statefuzz

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ebb-lb/ebb/maps"
)

// input is the bytes that say what happens.
type input struct{ rest []byte }

// opSize is how many bytes say what one operation is: all as many, so that
// whoever makes an input shorter can leave out any of them.
const opSize = 8

// next is one of n choices; 0 at the end.
func (in *input) next(n int) int {
	if len(in.rest) == 0 || n == 0 {
		return 0
	}
	b := in.rest[0]
	in.rest = in.rest[1:]
	return int(b) % n
}

// op is something that may happen, and how often it does, of 256.
type op struct {
	name   string
	weight int
	do     func(w *world, in *input) string // what happened; "": nothing could
}

// ops are all that may happen. Their order and weights are what stored inputs
// mean: append, and take from the first.
func ops() []op {
	return []op{
		{"deliver", 58, (*world).deliverOne},
		{"settle", 36, (*world).settle},
		{"call", 36, (*world).call},
		{"send", 20, (*world).send},
		{"finish", 10, (*world).finish},
		{"abort", 6, (*world).abort},
		{"repeat", 10, (*world).repeat},
		{"lose", 6, (*world).lose},
		{"duplicate", 8, (*world).duplicate},
		{"change pod", 14, (*world).changePod},
		{"evict", 10, (*world).evict},
		{"age", 8, (*world).age},
		{"forge", 18, (*world).forge},
		{"two CPUs", 8, (*world).twoCPUs},
		{"crash", 4, (*world).crash},
		{"collect", 4, (*world).collect},
	}
}

// play does what data says, and looks at the maps after each step.
func (w *world) play(data []byte) {
	w.tb.Helper()
	all := ops()
	for len(data) > 0 {
		in := &input{data[:min(opSize, len(data))]}
		data = data[len(in.rest):]
		n := in.next(256)
		i := 0
		for ; i < len(all)-1 && n >= all[i].weight; i++ {
			n -= all[i].weight
		}
		w.log = append(w.log, fmt.Sprintf("%4d %s", w.Now, all[i].name))
		at := len(w.log) - 1
		what := all[i].do(w, in)
		if what == "" {
			w.log = slices.Delete(w.log, at, at+1)
			continue
		}
		w.log[at] += " " + what
		w.look()
	}
}

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, "       "+fmt.Sprintf(format, args...))
}

// send puts what ends say under way.
func (w *world) say(p *Packet) string {
	if p == nil {
		return ""
	}
	w.enqueue(p)
	return describe(p)
}

// arrive judges what came out of the node and lets it be heard. met: another
// packet was on its way at the same time, so that it is not known which was first.
func (w *world) arrive(p *Packet, a *arrival, met bool) {
	w.tb.Helper()
	w.note("%s -> %s: %s", describe(p), arrived(a), a)
	w.judge(p, a)
	if a.answered != nil {
		w.hearNode(p, a)
	}
	if a.dropped || a.to == nil {
		return
	}
	client := p.From == nil || !p.From.Serves
	w.passed(p, a, client, met)
	w.enqueue(w.Hear(a.to, p, a.spec)...)
}

// through brings p through the node, and looks what that has changed there.
func (w *world) through(p *Packet) {
	w.tb.Helper()
	w.arrive(p, w.carry(p), false)
	w.look()
}

// passed notes what a packet that came through means for its flow.
func (w *world) passed(p *Packet, a *arrival, client, met bool) {
	if client && p.Proto != maps.UDP && p.Opens() {
		for _, f := range w.Flows {
			if f.Forward != p.Key() || f.Client == p.End {
				continue
			}
			if !f.Lives(w.Model) {
				f.Succeeded = true
			}
		}
		if c := w.Host(p.Src.Addr()); c != nil && p.Forged && c.Ends[p.Key()] != nil {
			c.Ends[p.Key()].Called = nil
		}
	}
	if p.Proto == maps.UDP && client {
		w.Datagram(p.Key(), Turned(maps.FlowKey{Src: a.spec.Src, Dst: a.spec.Dst, Proto: maps.UDP}), true)
	} else if p.Proto == maps.UDP {
		w.Datagram(Turned(maps.FlowKey{Src: a.spec.Src, Dst: a.spec.Dst, Proto: maps.UDP}), p.Key(), false)
	}
	if client && p.Opens() {
		if w.Given[p.Key()] == nil {
			w.Given[p.Key()] = make(map[*Host]bool)
		}
		w.Given[p.Key()][a.to] = true
	}
	if client && p.Opens() && p.End != nil {
		p.End.Called = a.to
		if met {
			p.End.Called = nil
		}
	}
	if client && p.Proto != maps.UDP {
		w.Believes(a.to, p.Key(), Turned(maps.FlowKey{Src: a.spec.Src, Dst: a.spec.Dst, Proto: p.Proto}))
	}
	f := w.flowOf(p)
	if f == nil && p.Proto == maps.UDP && client {
		if c := w.Host(p.Src.Addr()); c != nil && c.Ends[p.Key()] != nil {
			f = c.Ends[p.Key()].Flow // whoever sent it
		}
	}
	if f == nil || !f.came(a.spec, client) {
		return
	}
	room := !met && w.rig.Set.Sizes().Flows >= uint32(w.held+2)
	f.Passed(w.Model, p, client, room, met)
}

// hearNode is what a client does with the RST the node sent it.
func (w *world) hearNode(p *Packet, a *arrival) {
	src, dst := endsOf(a.answered)
	if p.Proto != maps.TCP || a.answered[23] != byte(maps.TCP) || p.From == nil {
		return
	}
	if e := p.From.Ends[maps.FlowKey{Src: dst, Dst: src, Proto: maps.TCP}]; e != nil {
		e.Host.drop(e)
	}
}

func (w *world) deliverOne(in *input) string {
	if len(w.Queue) == 0 {
		return ""
	}
	i := 0
	if in.next(4) == 3 {
		i = in.next(len(w.Queue))
	}
	p := w.take(i)
	w.through(p)
	return fmt.Sprint(i)
}

func (w *world) settle(*input) string {
	n := 0
	for ; n < 24 && len(w.Queue) > 0; n++ {
		p := w.take(0)
		w.through(p)
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// key is a client's tuple.
func (w *world) key(in *input) (*Host, maps.FlowKey) {
	c := w.Clients[in.next(len(w.Clients))]
	n := in.next(256)
	port := []uint16{2001, 40001, 2002, 40002}[n%4]
	proto := []maps.Proto{maps.TCP, maps.TCP, maps.UDP, maps.TCP}[n/4%4]
	if n/4%4 == 3 && n > 127 {
		proto = maps.SCTP
	}
	return c, maps.FlowKey{Src: netip.AddrPortFrom(c.Addr, port), Dst: vip(n / 16 % services), Proto: proto}
}

func (w *world) call(in *input) string {
	c, key := w.key(in)
	switch key.Proto {
	case maps.UDP:
		return w.say(w.CallUDP(c, key))
	case maps.SCTP:
		return w.say(w.CallSCTP(c, key))
	}
	return w.say(w.CallTCP(c, key))
}

// end is one of all ends there are.
func (w *world) end(in *input) *End {
	var all []*End
	for _, hosts := range [][]*Host{w.Clients, w.Pods} {
		for _, h := range hosts {
			if !h.Alive {
				continue
			}
			at := len(all)
			for _, e := range h.Ends {
				all = append(all, e)
			}
			slices.SortFunc(all[at:], func(a, b *End) int {
				if c := a.Key.Src.Compare(b.Key.Src); c != 0 {
					return c
				}
				if c := a.Key.Dst.Compare(b.Key.Dst); c != 0 {
					return c
				}
				return int(a.Key.Proto) - int(b.Key.Proto)
			})
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[in.next(len(all))]
}

func (w *world) send(in *input) string {
	e := w.end(in)
	switch {
	case e == nil:
		return ""
	case e.Key.Proto == maps.TCP:
		return w.say(e.Send())
	case e.Key.Proto == maps.SCTP:
		return w.say(e.SendSCTP())
	case e.Client:
		return w.say(w.CallUDP(e.Host, e.Key))
	}
	return w.say(e.Reply())
}

func (w *world) finish(in *input) string {
	switch e := w.end(in); {
	case e == nil:
	case e.Key.Proto == maps.TCP:
		return w.say(e.Finish())
	case e.Key.Proto == maps.SCTP:
		return w.say(e.FinishSCTP())
	}
	return ""
}

func (w *world) abort(in *input) string {
	switch e := w.end(in); {
	case e == nil:
	case e.Key.Proto == maps.TCP:
		return w.say(e.Abort())
	case e.Key.Proto == maps.SCTP:
		return w.say(e.AbortSCTP())
	}
	return ""
}

func (w *world) repeat(in *input) string {
	if e := w.end(in); e != nil && e.Key.Proto != maps.UDP {
		return w.say(e.Repeat())
	}
	return ""
}

func (w *world) lose(in *input) string {
	if len(w.Queue) == 0 {
		return ""
	}
	return describe(w.take(in.next(len(w.Queue))))
}

// duplicate doubles what is under way. A forged datagram that comes twice would
// be a conversation of a client nobody has heard of.
func (w *world) duplicate(in *input) string {
	if len(w.Queue) == 0 {
		return ""
	}
	p := w.Queue[in.next(len(w.Queue))]
	if p.Forged && p.Proto == maps.UDP {
		return ""
	}
	twin := *p
	w.enqueue(&twin)
	return describe(p)
}
