package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// plainEvery is how often a status is written where lines cannot be rewritten.
const plainEvery = 2 * time.Second

// progress tells people what is going on. Safe for concurrent use.
type progress struct {
	w        io.Writer
	terminal bool

	mu    sync.Mutex
	began time.Time
	last  time.Time // plain: of the last status
	open  bool      // terminal: the cursor is on a status line
}

func newProgress(w io.Writer, terminal bool) *progress {
	now := time.Now()
	return &progress{w: w, terminal: terminal, began: now, last: now}
}

// event writes a line that stays.
func (p *progress) event(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line(fmt.Sprintf(format, args...))
}

// status writes a line that the next one replaces, or, where that is not
// possible, a line now and then.
func (p *progress) status(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s%s", p.stamp(), text)
		p.open = true
		return
	}
	if now := time.Now(); now.Sub(p.last) >= plainEvery {
		p.last = now
		p.line(text)
	}
}

// close ends a status line.
func (p *progress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.open = false
	}
}

func (p *progress) line(text string) {
	if p.open {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.open = false
	}
	fmt.Fprintf(p.w, "%s%s\n", p.stamp(), text)
}

func (p *progress) stamp() string {
	return fmt.Sprintf("%5.1fs  ", time.Since(p.began).Seconds())
}

// tailLines is how much of a child's log is kept for the case that it fails.
const tailLines = 15

// tail is an io.Writer that keeps the last lines. Safe for concurrent use.
type tail struct {
	mu      sync.Mutex
	lines   []string
	partial string
}

func newTail() *tail { return &tail{} }

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(t.partial+string(p), "\n")
	t.partial = lines[len(lines)-1]
	t.lines = append(t.lines, lines[:len(lines)-1]...)
	t.lines = t.lines[max(0, len(t.lines)-tailLines):]
	return len(p), nil
}

// String returns the lines, indented, as the end of an error message.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := t.lines
	if t.partial != "" {
		lines = append(lines[:len(lines):len(lines)], t.partial)
	}
	if len(lines) == 0 {
		return " (it has logged nothing)"
	}
	return "; its last log lines:\n    " + strings.Join(lines, "\n    ")
}
