package responder

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"time"
)

// The control socket carries frames: a length, and JSON of that length. Frames
// are read to the byte, so that sockets can be sent between them.

const maxFrame = 64 << 20

// Roles of who connects.
const (
	roleAgent     = "agent"     // sends Updates, each answered by a Status
	roleSuccessor = "successor" // is sent a handover and the sockets, answers with a done
	roleQuit      = "quit"      // waits for the end
	roleVisitor   = "visitor"   // only wants to know who is there
)

type hello struct {
	Role string `json:"role"`
}

// welcome answers every hello.
type welcome struct {
	Identity string `json:"identity"`
	PID      int    `json:"pid"`
}

// handover is all a responder knows, without its sockets, which follow one by
// one in the order of Keys.
type handover struct {
	Update  Update        `json:"update"`
	Age     time.Duration `json:"age"` // of the View
	Answers []Answers     `json:"answers"`
	Keys    []key         `json:"keys"`
}

type done struct{}

// The files in a state directory, beside the drain order.
func socketPath(dir string) string { return filepath.Join(dir, "responder.sock") }
func lockPath(dir string) string   { return filepath.Join(dir, "responder.lock") }
func logPath(dir string) string    { return filepath.Join(dir, "responder.log") }

func writeFrame(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("frame: %w", err)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	if _, err := w.Write(append(frame, body...)); err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	return nil
}

func readFrame(r io.Reader, v any) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxFrame {
		return fmt.Errorf("frame of %d bytes, at most %d", n, maxFrame)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	return nil
}
