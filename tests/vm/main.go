// Command vm runs the tests in virtual machines, one per kernel. What runs is in
// the file levels, which skips are expected in skips; see docs/contributing.md.
//
// It knows test binaries, their output and how to judge it. Where kernels come
// from and how they boot is left to the scripts beside it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	kernels, levels, run string
	docs                 string
	slow, atOnce         int
	bound, jobBound      time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.kernels, "kernels", "6.1 6.12", `series of Debian kernels, or "newest"`)
	flag.StringVar(&o.levels, "levels", "", "only these levels, separated by spaces")
	flag.StringVar(&o.run, "run", "", "only tests that match this regular expression")
	flag.StringVar(&o.docs, "docs", "", "write the table of features into this document")
	flag.IntVar(&o.slow, "slow", 12, "how many times slower than a host an emulated machine is")
	flag.IntVar(&o.atOnce, "at-once", 1, "how many machines run side by side")
	flag.DurationVar(&o.bound, "bound", 65*time.Minute, "longest time for one kernel")
	flag.DurationVar(&o.jobBound, "job-bound", 45*time.Minute, "longest time for one test binary")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ok, err := matrix(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// matrix runs everything and reports whether all is well.
func matrix(ctx context.Context, o options) (bool, error) {
	root, err := moduleRoot()
	if err != nil {
		return false, err
	}
	s, err := newSession(root, o)
	if err != nil {
		return false, err
	}
	kernels, err := fetch(ctx, root, strings.Fields(o.kernels))
	if err != nil {
		return false, err
	}
	if err := s.build(); err != nil {
		return false, err
	}
	results, err := s.all(ctx, kernels)
	if err != nil {
		return false, err
	}
	ok := true
	for _, r := range results {
		ok = ok && r.ok()
		if err := r.write(os.Stdout, s.levels); err != nil {
			return false, err
		}
	}
	return ok, s.document(results)
}

func moduleRoot() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// session is what all kernels have in common.
type session struct {
	options
	root, cache string
	lines       []line
	levels      []string
	skips       []skip
	jobs        []job
}

func newSession(root string, o options) (*session, error) {
	s := &session{options: o, root: root, cache: os.Getenv("VM_CACHE")}
	if s.cache == "" {
		s.cache = filepath.Join(root, ".cache", "vm")
	}
	var err error
	if s.cache, err = filepath.Abs(s.cache); err != nil {
		return nil, err
	}
	if s.lines, err = parseFile(filepath.Join(root, "tests/vm/levels"), parseLevels); err != nil {
		return nil, err
	}
	if s.skips, err = parseFile(filepath.Join(root, "tests/vm/skips"), parseSkips); err != nil {
		return nil, err
	}
	known := levelNames(s.lines)
	wanted := strings.Fields(o.levels)
	for _, l := range wanted {
		if !slices.Contains(known, l) {
			return nil, fmt.Errorf("level %s: known are %s", l, strings.Join(known, ", "))
		}
	}
	s.lines = slices.DeleteFunc(s.lines, func(l line) bool {
		return len(wanted) > 0 && !slices.Contains(wanted, l.level) || o.run != "" && l.command != ""
	})
	s.levels = levelNames(s.lines)
	return s, nil
}

// partial reports whether not everything runs.
func (s *session) partial() bool { return s.run != "" || s.options.levels != "" }

// binaries is where test binaries are, for host and guest.
func (s *session) binaries() string { return filepath.Join(s.cache, "bin") }

func (s *session) build() error {
	if err := os.MkdirAll(s.binaries(), 0o755); err != nil {
		return err
	}
	fmt.Println("building test binaries")
	b := builder{root: s.root, dir: s.binaries(), run: s.run, built: map[string]string{}}
	var err error
	s.jobs, err = b.jobs(s.lines)
	return err
}

// all runs all jobs on each of kernels, some machines at once. Results are in the order
// of kernels.
func (s *session) all(ctx context.Context, kernels []kernel) ([]*result, error) {
	results, errs := make([]*result, len(kernels)), make([]error, len(kernels))
	room := make(chan struct{}, max(1, s.atOnce))
	var wg sync.WaitGroup
	for i, k := range kernels {
		wg.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			if results[i], errs[i] = s.kernel(ctx, k); errs[i] != nil {
				errs[i] = fmt.Errorf("kernel %s: %w", k.name, errs[i])
			}
		})
	}
	wg.Wait()
	return results, errors.Join(errs...)
}

// kernel runs all jobs on k. Failures of tests and of the machine are in the
// result; the error is about the host.
func (s *session) kernel(ctx context.Context, k kernel) (*result, error) {
	m := machine{
		root: s.root, dir: filepath.Join(s.cache, "results", k.name), binaries: s.binaries(),
		slow: s.slow, bound: s.bound,
	}
	began := time.Now()
	progress := &progressWriter{to: os.Stdout, name: k.name, began: began}
	bootErr := m.run(ctx, k, plan(s.jobs, s.jobBound), progress)
	if bootErr != nil && ctx.Err() == nil && m.note("release") == "" {
		// An emulated kernel now and then panics while it patches itself, before anything of ours ran.
		fmt.Printf("%s did not boot (%v), once more; its console is in %s\n", k.name, bootErr, m.keepConsole())
		bootErr = m.run(ctx, k, plan(s.jobs, s.jobBound), progress)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r := &result{
		kernel: k.name, release: m.note("release"), hardware: m.note("accelerator"), dir: m.dir,
		took: time.Since(began), seconds: map[string]time.Duration{},
	}
	if bootErr != nil {
		r.problems = append(r.problems, bootErr.Error())
	}
	for _, j := range s.jobs {
		cases, err := collect(m.dir, j)
		if err != nil {
			return nil, err
		}
		r.cases = append(r.cases, cases...)
		if _, took, err := readExit(filepath.Join(m.dir, j.name+".exit")); err == nil {
			r.seconds[j.level] += took
		}
	}
	r.judge(s.levels, s.skips, s.partial())
	return r, writeJUnit(filepath.Join(m.dir, "junit.xml"), junit(r, s.levels))
}

// document writes the table of features, if that is asked for.
func (s *session) document(results []*result) error {
	if s.docs == "" {
		return nil
	}
	var surveys []survey
	for _, r := range results {
		for _, j := range s.jobs {
			if j.level != "preflight" {
				continue
			}
			sv, err := readSurvey(filepath.Join(r.dir, j.name+".log"))
			if err != nil {
				return err
			}
			surveys = append(surveys, sv)
		}
	}
	if len(surveys) == 0 {
		return fmt.Errorf("no features for %s: level preflight did not run", s.docs)
	}
	old, err := os.ReadFile(s.docs)
	if err != nil {
		return err
	}
	updated, err := replaceTable(old, featureTable(surveys))
	if err != nil {
		return fmt.Errorf("%s: %w", s.docs, err)
	}
	return os.WriteFile(s.docs, updated, 0o644)
}

// parseFile opens path for parse. Errors name it.
func parseFile[T any](path string, parse func(io.Reader) (T, error)) (T, error) {
	var zero T
	f, err := os.Open(path)
	if err != nil {
		return zero, err
	}
	defer f.Close()
	t, err := parse(f)
	if err != nil {
		return zero, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}
