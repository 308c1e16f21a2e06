package topology

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/packet"
)

// Not every kernel has SCTP, so both ends of associations are played here, on
// raw sockets: as much of RFC 9260 as it takes to see whom one talks to.

// message is an SCTP packet of one chunk.
type message struct {
	src, dst uint16
	tag      uint32
	chunk    packet.Chunk
	value    string
}

// sctpHeader is the common header and the head of a chunk.
const sctpHeader = 16

func (m message) encode() []byte {
	value := m.announces() + m.value
	b := binary.BigEndian.AppendUint16(nil, m.src)
	b = binary.BigEndian.AppendUint16(b, m.dst)
	b = binary.BigEndian.AppendUint32(b, m.tag)
	b = append(b, 0, 0, 0, 0, byte(m.chunk), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(value)))
	b = append(b, value...)
	b = append(b, make([]byte, -len(b)&3)...)
	binary.LittleEndian.PutUint32(b[8:], checksum(b))
	return b
}

// announces is what INIT and INIT ACK begin with: the tag that the other side has
// to send from then on (RFC 9260, 3.3.2).
func (m message) announces() string {
	switch m.chunk {
	case packet.Init:
		return string(binary.BigEndian.AppendUint32(nil, clientTag))
	case packet.InitAck:
		return string(binary.BigEndian.AppendUint32(nil, podTag))
	}
	return ""
}

func decode(b []byte) (message, error) {
	if len(b) < sctpHeader || len(b) < 12+int(binary.BigEndian.Uint16(b[14:])) {
		return message{}, fmt.Errorf("%d bytes are no packet", len(b))
	}
	if got, want := binary.LittleEndian.Uint32(b[8:]), checksum(b); got != want {
		return message{}, fmt.Errorf("checksum %#x, want %#x", got, want)
	}
	m := message{
		src: binary.BigEndian.Uint16(b), dst: binary.BigEndian.Uint16(b[2:]),
		tag: binary.BigEndian.Uint32(b[4:]), chunk: packet.Chunk(b[12]),
	}
	m.value = strings.TrimPrefix(string(b[sctpHeader:12+binary.BigEndian.Uint16(b[14:])]), m.announces())
	return m, nil
}

// checksum is that of the packet b, whatever stands in its field.
func checksum(b []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(crc32.Update(0, table, b[:8]), table, make([]byte, 4))
	return crc32.Update(sum, table, b[12:])
}

// answers are what the passive side says to each chunk.
var answers = map[packet.Chunk]packet.Chunk{
	packet.Init: packet.InitAck, packet.CookieEcho: packet.CookieAck,
	packet.Data: packet.Data, packet.Shutdown: packet.ShutdownAck,
}

// The tags of all associations, by who is to get them.
const clientTag, podTag = 0xc11e47, 0x90d

// answerAssociations answers what comes to port of a pod with the pod's name
// until the world ends.
func (w *world) answerAssociations(p *lab.Pod, port uint16) {
	w.Helper()
	for _, network := range []string{"ip4:132", "ip6:132"} {
		conn, err := p.ListenPacket(w.Context(), network, "")
		if err != nil {
			w.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- answer(conn, p.Name(), port) }()
		w.Cleanup(func() {
			_ = conn.Close()
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				w.Errorf("pod %s: %v", p.Name(), err)
			}
		})
	}
}

func answer(conn net.PacketConn, name string, port uint16) error {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		m, err := decode(buf[:n])
		if err != nil {
			return err
		}
		if m.dst != port {
			return fmt.Errorf("port %d was dialled, want %d", m.dst, port)
		}
		kind, ok := answers[m.chunk]
		if !ok {
			continue
		}
		reply := message{src: m.dst, dst: m.src, tag: clientTag, chunk: kind, value: name}
		if _, err := conn.WriteTo(reply.encode(), from); err != nil {
			return err
		}
	}
}

// dialler begins associations, each from a port of its own.
type dialler struct {
	w    *world
	conn net.PacketConn
	last uint16
}

func (w *world) newDialler(network string) *dialler {
	w.Helper()
	conn, err := w.client().ListenPacket(w.Context(), network, "")
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = conn.Close() })
	return &dialler{w: w, conn: conn, last: 40000}
}

// association is one of a dialler's, with the pod that answered first.
type association struct {
	*dialler
	port   uint16
	target netip.AddrPort
	pod    string
}

// dial begins an association.
func (d *dialler) dial(target netip.AddrPort) *association {
	d.w.Helper()
	d.last++
	a := &association{dialler: d, port: d.last, target: target}
	a.pod = a.ask(packet.Init, 0)
	if again := a.ask(packet.CookieEcho, podTag); again != a.pod {
		d.w.Fatalf("%s answers the INIT, %s the cookie", a.pod, again)
	}
	return a
}

// ask says something and returns who answers. As SCTP does, it says it again if
// nobody does.
func (a *association) ask(kind packet.Chunk, tag uint32) (pod string) {
	a.w.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		a.say(kind, tag)
		got, err := a.hear()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			a.w.Fatalf("port %d of %s: %v", a.port, a.target, err)
		}
		if got.chunk == answers[kind] {
			return got.value
		}
	}
	a.w.Fatalf("nobody answers chunk %d of port %d at %s", kind, a.port, a.target)
	return ""
}

func (a *association) say(kind packet.Chunk, tag uint32) {
	a.w.Helper()
	m := message{src: a.port, dst: a.target.Port(), tag: tag, chunk: kind, value: "odd"}
	if _, err := a.conn.WriteTo(m.encode(), &net.IPAddr{IP: a.target.Addr().AsSlice()}); err != nil {
		a.w.Fatal(err)
	}
}

// again is how long an answer is waited for before it is asked once more.
const again = time.Second

// hear returns the next message to the association.
func (a *association) hear() (message, error) {
	b, err := a.receive()
	if err != nil {
		return message{}, err
	}
	return decode(b)
}

// receive returns the next packet to the association, which must be from whom it dialled.
func (a *association) receive() ([]byte, error) {
	buf := make([]byte, 1500)
	if err := a.conn.SetReadDeadline(time.Now().Add(again)); err != nil {
		return nil, err
	}
	for {
		n, from, err := a.conn.ReadFrom(buf)
		if err != nil {
			return nil, err
		}
		if n < sctpHeader || binary.BigEndian.Uint16(buf[2:]) != a.port {
			continue
		}
		if src := binary.BigEndian.Uint16(buf); from.String() != a.target.Addr().String() || src != a.target.Port() {
			return nil, fmt.Errorf("an answer from %s, port %d", from, src)
		}
		return buf[:n], nil
	}
}

// end ends the association in good order.
func (a *association) end() {
	a.w.Helper()
	a.ask(packet.Shutdown, podTag)
	a.say(packet.ShutdownComplete, podTag)
}
