package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/ebb-lb/ebb/agent/service"
)

const (
	// pollInterval bounds how long a change goes unnoticed that the kernel
	// does not tell of: behind a symbolic link, on a network file system.
	pollInterval = time.Second
	// settleTime joins the events of one change into one load.
	settleTime = 20 * time.Millisecond
)

// Dir fills a Store from the manifests in a directory: Service,
// EndpointSlice, Node, ServiceCIDR, and Lists of them, in *.yaml, *.yml and *.json, not
// recursively; hidden files are skipped, others are named in the log. The directory counts as a whole: as
// long as anything in it is wrong, the last good state stays in force. Files
// should be replaced by renaming; one that is written in place may be read
// when it is half written.
type Dir struct {
	path     string
	opts     Options
	store    *service.Store
	log      *slog.Logger
	pollOnly bool

	seen     []fileState     // of the last load; nil: load again
	reported map[string]bool // what was logged once

	mu  sync.Mutex
	err error
}

// NewDir returns a source that is not running yet. While there is no manifest
// of the own Node, it has a name and nothing else.
func NewDir(path string, opts Options, store *service.Store, log *slog.Logger) *Dir {
	return &Dir{
		path:     path,
		opts:     opts,
		store:    store,
		log:      log.With("dir", path),
		reported: map[string]bool{},
	}
}

// PollOnly makes Run look for changes once a second instead of having the
// kernel tell of them, as it does where the kernel cannot. It must be called
// before Run.
func (d *Dir) PollOnly() { d.pollOnly = true }

// Err returns what is wrong with the directory now; nil if its last version
// is in force. It is safe for concurrent use.
func (d *Dir) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// Run fills the Store, and keeps it up to date, until ctx is done, then
// returns nil. The Store is synced after the first good load. A directory
// that does not exist is an error at once; one with errors in it is waited
// for. It must run only once.
func (d *Dir) Run(ctx context.Context) error {
	if _, err := os.ReadDir(d.path); err != nil {
		return fmt.Errorf("watch manifests: %w", err)
	}
	events := d.events()
	defer events.close()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()

	d.load() // after the watch began: nothing falls between them
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-settled:
			settled = nil
			d.load()
		case <-poll.C:
			d.poll(events)
		case ev := <-events.changes():
			if settled == nil && concernsManifests(ev) {
				settled = time.After(settleTime)
			}
		case err := <-events.errors():
			d.log.Warn("change events lost", "error", err)
			d.load()
		}
	}
}

// events returns nil where there will be none.
func (d *Dir) events() *dirEvents {
	if d.pollOnly {
		return nil
	}
	events, err := newDirEvents(d.path)
	if err != nil {
		d.log.Warn("no change events, polling only", "error", err)
	}
	return events
}

// concernsManifests lets "..data" through, the link that is swapped when a
// mounted ConfigMap changes, but not the scratch files of editors.
func concernsManifests(ev fsnotify.Event) bool {
	if ev.Op == fsnotify.Chmod {
		return false
	}
	name := filepath.Base(ev.Name)
	return !strings.HasPrefix(name, ".") || strings.HasPrefix(name, "..")
}

// poll loads if the directory differs from the version that was loaded last.
func (d *Dir) poll(events *dirEvents) {
	now, err := list(d.path)
	if err == nil && slices.Equal(now, d.seen) {
		if d.Err() == nil {
			d.opts.Contact.made()
		}
		return
	}
	// The path may lead to another directory by now.
	events.renew()
	d.load()
}

// load puts the directory into the Store, or leaves the Store as it is.
func (d *Dir) load() {
	files, seen, err := readManifests(d.path)
	d.seen = seen
	var c content
	if err == nil {
		c, err = parse(files, d.opts)
	}
	changed := d.setErr(err)
	if err != nil {
		if changed {
			d.log.Error("manifests refused, last good state stays", "error", err)
		}
		return
	}
	d.opts.Contact.made()
	if skipped, err := notTaken(d.path); err == nil { // else the next load says so
		d.report(skipped)
	}
	d.report(c.ignored)
	d.store.Replace(c.Content)
	if changed || !d.store.Synced() {
		d.log.Info("manifests in force", "services", len(c.Services), "slices", len(c.Slices))
	}
	d.store.SetSynced()
}

// setErr reports whether err says something new.
func (d *Dir) setErr(err error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := (err == nil) != (d.err == nil) || err != nil && err.Error() != d.err.Error()
	d.err = err
	return changed
}

func (d *Dir) report(ignored []string) {
	for _, text := range ignored {
		if !d.reported[text] {
			d.reported[text] = true
			d.log.Info("manifest ignored", "reason", text)
		}
	}
}

// dirEvents tells of changes in a directory. A nil dirEvents never does.
type dirEvents struct {
	path    string
	watcher *fsnotify.Watcher
}

func newDirEvents(path string) (*dirEvents, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	if err := w.Add(path); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return &dirEvents{path: path, watcher: w}, nil
}

func (e *dirEvents) changes() <-chan fsnotify.Event {
	if e == nil {
		return nil
	}
	return e.watcher.Events
}

func (e *dirEvents) errors() <-chan error {
	if e == nil {
		return nil
	}
	return e.watcher.Errors
}

// renew follows the path to the directory it leads to now. While there is
// none, polling goes on.
func (e *dirEvents) renew() {
	if e == nil {
		return
	}
	// Both fail while the directory is away.
	_ = e.watcher.Remove(e.path)
	_ = e.watcher.Add(e.path)
}

func (e *dirEvents) close() {
	if e != nil {
		_ = e.watcher.Close() // nothing is written through it
	}
}
