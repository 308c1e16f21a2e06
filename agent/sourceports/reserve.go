package sourceports

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/agent/noted"
)

// The kernel's settings; those of net are of the network namespace of the calling
// thread. Both are for IPv6 too.
const (
	ephemeralFile = "/proc/sys/net/ipv4/ip_local_port_range"
	reservedFile  = "/proc/sys/net/ipv4/ip_local_reserved_ports"
)

// Reservation is what an agent has added to the reserved ports of its network
// namespace. It is noted in a file of the state directory before it is made, so
// that whatever ends the agent, the next one and "ebb cleanup" know what is
// theirs and what is not. One process at a time may change it.
type Reservation string

// ReservationIn returns the one noted in a state directory.
func ReservationIn(dir string) Reservation {
	return Reservation(filepath.Join(dir, "reserved-ports.json"))
}

// note is the content of the file.
type note struct {
	noted.Origin
	Ports string `json:"ports"`
}

// Writable reports why the kernel's setting could not be changed, nil if it could.
func Writable() error {
	if err := unix.Access(noted.Writable(reservedFile), unix.W_OK); err != nil {
		return fmt.Errorf("write %s: %w", reservedFile, err)
	}
	return nil
}

// Node returns what the kernel gives to sockets, without the agent's doing.
func (r Reservation) Node() (Node, error) {
	ephemeral, err := readEphemeral()
	if err != nil {
		return Node{}, err
	}
	mine, err := r.mine()
	if err != nil {
		return Node{}, err
	}
	all, err := readReserved()
	return Node{Ephemeral: ephemeral, Reserved: all.Without(mine)}, err
}

// Make reserves exactly these ports beside what others have reserved, and gives
// back what was reserved before and is not among them. It returns whether the
// kernel's setting had to be changed.
func (r Reservation) Make(ports Set) (changed bool, err error) {
	mine, err := r.mine()
	if err != nil {
		return false, err
	}
	before, err := readReserved()
	if err != nil {
		return false, err
	}
	others := before.Without(mine)
	ports = ports.Without(others)
	after := others.Or(ports)
	if after != before {
		// If this ends in between, either may be there.
		if err := r.write(mine.Or(ports)); err != nil {
			return false, err
		}
		if err := writeReserved(after); err != nil {
			return false, errors.Join(err, r.write(mine))
		}
	}
	if ports == mine {
		return after != before, nil
	}
	return after != before, r.write(ports)
}

// Release gives back all that was reserved, and forgets it.
func (r Reservation) Release() error {
	_, err := r.Make(Set{})
	if err == nil {
		err = r.file().Remove()
	}
	if err != nil {
		return fmt.Errorf("give reserved ports back: %w", err)
	}
	return nil
}

// mine is what the agent has reserved in this namespace.
func (r Reservation) mine() (Set, error) {
	var n note
	if err := r.file().Read(&n); err != nil {
		return Set{}, err
	}
	here, err := noted.Here()
	if err != nil || n.Origin != here {
		return Set{}, err
	}
	s, err := ParseSet(n.Ports)
	if err != nil {
		err = fmt.Errorf("%s: %w", r, err)
	}
	return s, err
}

// write notes that ports are the agent's, in one step.
func (r Reservation) write(ports Set) error {
	if ports == (Set{}) {
		return r.file().Remove()
	}
	here, err := noted.Here()
	if err != nil {
		return err
	}
	return r.file().Write(note{Origin: here, Ports: ports.String()})
}

func (r Reservation) file() noted.File { return noted.File(r) }

func readEphemeral() (Range, error) {
	text, err := os.ReadFile(ephemeralFile)
	if err != nil {
		return Range{}, err
	}
	fields := strings.Fields(string(text))
	if len(fields) != 2 {
		return Range{}, fmt.Errorf("%s holds %q", ephemeralFile, text)
	}
	low, err1 := strconv.ParseUint(fields[0], 10, 16)
	high, err2 := strconv.ParseUint(fields[1], 10, 16)
	if err1 != nil || err2 != nil {
		return Range{}, fmt.Errorf("%s holds %q", ephemeralFile, text)
	}
	return Range{uint16(low), uint16(high)}, nil
}

func readReserved() (Set, error) {
	text, err := os.ReadFile(reservedFile)
	if err != nil {
		return Set{}, err
	}
	s, err := ParseSet(string(bytes.TrimSpace(text)))
	if err != nil {
		err = fmt.Errorf("%s: %w", reservedFile, err)
	}
	return s, err
}

// writeReserved replaces the setting. A line without ports is what empties it.
func writeReserved(s Set) error {
	return os.WriteFile(noted.Writable(reservedFile), []byte(s.String()+"\n"), 0o644)
}
