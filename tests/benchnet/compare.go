package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// settle is the duration of the turn that every contender takes before the first
// round. It proves that traffic gets through, and resolves neighbours.
const settle = 50 * time.Millisecond

// comparison is a whole run. Its first contender is plain routing.
type comparison struct {
	cfg    config
	rows   []row
	worlds []*world
	cells  map[cellKey]*cell
}

type cellKey struct{ contender, row string }

// cell is what was measured of a contender in a row, a value per round.
type cell struct {
	rates, ratios []float64
}

// newComparison sets up the contenders that are measured, and proves that each of
// them carries the traffic of each row. On error nothing is left behind.
func newComparison(ctx context.Context, cfg config) (*comparison, error) {
	c := &comparison{cfg: cfg, cells: map[cellKey]*cell{}}
	all := contenders(cfg)
	for _, r := range rows() {
		if slices.ContainsFunc(all, func(k contender) bool { return cfg.selects(k, r) }) {
			c.rows = append(c.rows, r)
		}
	}
	if len(c.rows) == 0 {
		return nil, fmt.Errorf("-only %s: no contender and no row contains it", cfg.only)
	}
	for i, k := range all {
		if i > 0 && !slices.ContainsFunc(c.rows, func(r row) bool { return cfg.selects(k, r) }) {
			continue
		}
		if err := c.add(ctx, k); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", k.name, err), c.close())
		}
	}
	return c, nil
}

// selects reports whether a contender is measured in a row.
func (cfg config) selects(k contender, r row) bool {
	return slices.ContainsFunc(strings.Split(cfg.only, ","), func(word string) bool {
		return strings.Contains(k.name+" "+r.name, word)
	})
}

// add sets up a contender. One that cannot be had on this machine is left out.
func (c *comparison) add(ctx context.Context, k contender) error {
	w, err := newWorld(ctx, k, c.cfg.nice)
	if missing := (*missingError)(nil); errors.As(err, &missing) {
		fmt.Fprintf(os.Stderr, "%s is left out: %v\n", k.name, missing)
		return nil
	}
	if err != nil {
		return err
	}
	c.worlds = append(c.worlds, w)
	for _, r := range c.rows {
		if !c.measures(w, r) {
			continue
		}
		if _, err := w.turn(r, settle); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		c.cells[cellKey{w.name, r.name}] = &cell{}
	}
	return nil
}

// measures reports whether w takes turns in r: plain routing always does.
func (c *comparison) measures(w *world, r row) bool {
	return w == c.worlds[0] || c.cfg.selects(w.contender, r)
}

func (c *comparison) close() error {
	var errs []error
	for _, w := range c.worlds {
		errs = append(errs, w.close())
	}
	return errors.Join(errs...)
}

// measure goes through all rounds. In each, another contender begins.
func (c *comparison) measure(ctx context.Context) error {
	for round := range c.cfg.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, c.cfg.rounds)
		for _, r := range c.rows {
			if err := c.measureRow(ctx, r, round); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	return nil
}

func (c *comparison) measureRow(ctx context.Context, r row, round int) error {
	rates := map[*world]float64{}
	for i := range c.worlds {
		w := c.worlds[(i+round)%len(c.worlds)]
		if !c.measures(w, r) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rate, err := w.turn(r, c.cfg.turn)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		rates[w] = rate
	}
	for w, rate := range rates {
		into := c.cells[cellKey{w.name, r.name}]
		into.rates = append(into.rates, rate)
		into.ratios = append(into.ratios, rate/rates[c.worlds[0]])
	}
	return nil
}

// print writes a table: a line per contender, a column per row.
func (c *comparison) print(to io.Writer) {
	fmt.Fprint(to, "| contender |")
	for _, r := range c.rows {
		fmt.Fprintf(to, " %s |", r.title)
	}
	fmt.Fprintf(to, "\n|---|%s\n", strings.Repeat("--:|", len(c.rows)))
	for _, w := range c.worlds {
		fmt.Fprintf(to, "| %s |", w.name)
		for _, r := range c.rows {
			fmt.Fprintf(to, " %s |", c.cells[cellKey{w.name, r.name}].text(r, w == c.worlds[0]))
		}
		fmt.Fprintln(to)
	}
}

func (c *cell) text(r row, reference bool) string {
	if c == nil {
		return ""
	}
	rate := fmt.Sprintf(r.format, quantile(c.rates, 0.5))
	if reference {
		return rate
	}
	return fmt.Sprintf("%s (%.2f: %.2f–%.2f)", rate, quantile(c.ratios, 0.5), quantile(c.ratios, 0.25), quantile(c.ratios, 0.75))
}

// quantile returns the value below which that part of the values is, between two of
// them if need be.
func quantile(of []float64, part float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	at := part * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}
