package noted

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Settings is the path of a note of kernel settings that an agent has raised in its
// network namespace. It is written before a setting is, so whatever ends the agent,
// the next one and "ebb cleanup" know what is theirs. One process at a time may
// change it.
type Settings string

// Setting is a number of the kernel's, and what it is to be at least.
type Setting struct {
	Name, File string
	Least      int
	// Follows is the name of a setting that has to be raised first; empty: of none.
	Follows string
}

// Change is a setting that has been given another value.
type Change struct {
	Name          string
	Before, After int
}

// settingsNote is the content of the file.
type settingsNote struct {
	Origin
	Settings map[string]raised `json:"settings"` // by their files
}

// raised is a setting that is the agent's as long as nobody gives it another value.
type raised struct {
	Before int `json:"before"`
	After  int `json:"after"`
}

// Raise brings the kernel's settings to what is wanted, never below what they were
// before the agent changed them: a lower one is raised, what an earlier agent has
// raised higher is taken back, and so is what is not wanted any more. A setting that
// the kernel does not have is left out. It returns what it changed; an error names
// all that could not be.
func (s Settings) Raise(want []Setting) (changes []Change, err error) {
	n, err := s.read()
	if err != nil {
		return nil, err
	}
	want = slices.Clone(want)
	for file := range n.Settings {
		if !slices.ContainsFunc(want, func(w Setting) bool { return w.File == file }) {
			want = append(want, Setting{Name: file, File: file})
		}
	}
	var errs []error
	refused := make(map[string]bool)
	for _, w := range want {
		if w.Follows != "" && refused[w.Follows] {
			continue
		}
		c, err := s.raiseOne(w, &n)
		if err != nil {
			refused[w.Name] = true
			errs = append(errs, err)
		} else if c.Before != c.After {
			changes = append(changes, c)
		}
	}
	return changes, errors.Join(errs...)
}

// Release gives back what is still as the agent has left it, and forgets all.
func (s Settings) Release() error {
	_, err := s.Raise(nil)
	return errors.Join(err, File(s).Remove())
}

// raiseOne gives one setting the value it is to have, and keeps the note in step.
func (s Settings) raiseOne(w Setting, n *settingsNote) (Change, error) {
	now, err := ReadValue(w.File)
	if errors.Is(err, fs.ErrNotExist) {
		return Change{}, nil
	}
	if err != nil {
		return Change{}, err
	}
	was, known := n.Settings[w.File]
	before := now
	if known && now == was.After {
		before = was.Before
	}
	to := max(before, w.Least)
	if to == now {
		return Change{}, s.write(n, w.File, before, to)
	}
	if err := s.write(n, w.File, before, to); err != nil {
		return Change{}, err
	}
	if err := os.WriteFile(Writable(w.File), []byte(strconv.Itoa(to)), 0o644); err != nil {
		return Change{}, errors.Join(fmt.Errorf("set %s to %d (it is %d): %w", w.Name, to, now, err), s.write(n, w.File, before, now))
	}
	return Change{w.Name, now, to}, nil
}

// write notes what a setting was and is, if that is the agent's doing.
func (s Settings) write(n *settingsNote, file string, before, after int) error {
	was, noticed := n.Settings[file]
	is := raised{before, after}
	switch {
	case before != after && was != is:
		n.Settings[file] = is
	case before == after && noticed:
		delete(n.Settings, file)
	default:
		return nil
	}
	if len(n.Settings) == 0 {
		return File(s).Remove()
	}
	return File(s).Write(n)
}

// read returns the note of this namespace.
func (s Settings) read() (settingsNote, error) {
	var n settingsNote
	if err := File(s).Read(&n); err != nil {
		return settingsNote{}, err
	}
	here, err := Here()
	if err != nil {
		return settingsNote{}, err
	}
	if n.Origin != here || n.Settings == nil {
		n = settingsNote{Origin: here, Settings: make(map[string]raised)}
	}
	return n, nil
}

// ReadValue reads a setting that is a number.
func ReadValue(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("%s holds %q", file, text)
	}
	return v, nil
}
