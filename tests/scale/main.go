// Command scale measures the control plane with many services: the real loop on
// real maps of the kernel, which nobody else sees, fed through the store or
// through the informers of a Kubernetes source. Beside it stands the floor: the
// same writes to the same maps, alone.
//
// Each row is a process of its own, so that memory and CPU time are its own.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// size is what is measured.
type size struct {
	services, endpoints int // endpoints per service
	rate                int // changes per second
	lasting             time.Duration
	interval            time.Duration // --min-sync-interval
}

// row is what was measured of one way in.
type row struct {
	Name string
	// First is from the first event to the first complete sync.
	First time.Duration
	// CPU is what that took of all threads.
	CPU time.Duration
	RSS uint64 // bytes, the most there was
	// Changes, P50, P99 and Most are of changes to single endpoints, from the
	// event to the end of the writes.
	Changes        int
	P50, P99, Most time.Duration
	// Load is CPU time by time while they came, ChangeCPU what each cost.
	Load      float64
	ChangeCPU time.Duration
	// FirstFloor and ChangeFloor are the writes alone: all of the first sync, and
	// of one change.
	FirstFloor, ChangeFloor time.Duration
	// FirstWrites and ChangeWrites are how many there are.
	FirstWrites, ChangeWrites int
}

func main() {
	var s size
	flag.IntVar(&s.services, "services", 10_000, "services")
	flag.IntVar(&s.endpoints, "endpoints", 10, "endpoints of each")
	flag.IntVar(&s.rate, "rate", 100, "changes of single endpoints per second")
	flag.DurationVar(&s.lasting, "for", 20*time.Second, "how long changes come")
	flag.DurationVar(&s.interval, "min-sync-interval", 50*time.Millisecond, "as the agent's flag")
	only := flag.String("row", "", "measure one row and print it as JSON: store, informers, floor")
	profile := flag.String("cpuprofile", "", "with -row: write a CPU profile to this file")
	flag.Parse()
	if err := run(s, *only, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(s size, only, profile string) error {
	if only == "" {
		return table(os.Stdout)
	}
	stop, err := profiled(profile)
	if err != nil {
		return err
	}
	r, err := measure(context.Background(), s, only)
	stop()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// table measures every row in a process of its own.
func table(w io.Writer) error {
	var rows []row
	for _, name := range []string{"floor", "store", "informers"} {
		cmd := exec.Command("/proc/self/exe", append(os.Args[1:len(os.Args):len(os.Args)], "-row", name)...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("row %s: %w", name, err)
		}
		var r row
		if err := json.Unmarshal(out, &r); err != nil {
			return fmt.Errorf("row %s: %w", name, err)
		}
		rows = append(rows, r)
	}
	floor := rows[0]
	fmt.Fprintln(w, "| fed through | first sync | CPU | RSS | p50 | p99 | most | CPU while changes come |")
	fmt.Fprintln(w, "|---|--:|--:|--:|--:|--:|--:|--:|")
	for _, r := range rows[1:] {
		fmt.Fprintf(w, "| %s | %.2f s | %.2f s | %d MB | %.1f ms | %.1f ms | %.1f ms | %.0f %% of a core |\n", r.Name,
			r.First.Seconds(), r.CPU.Seconds(), r.RSS>>20, ms(r.P50), ms(r.P99), ms(r.Most), 100*r.Load)
	}
	fmt.Fprintf(w, "\n| the writes alone | agent, through the store | writes | × |\n|---|--:|--:|--:|\n")
	fmt.Fprintf(w, "| first sync: %.2f s | %.2f s | %d | %.1f |\n", floor.FirstFloor.Seconds(), rows[1].First.Seconds(),
		floor.FirstWrites, float64(rows[1].First)/float64(floor.FirstFloor))
	fmt.Fprintf(w, "| a change: %.1f µs | %.1f µs of CPU | %.1f | %.1f |\n", us(floor.ChangeFloor), us(rows[1].ChangeCPU),
		float64(floor.ChangeWrites)/float64(max(1, floor.Changes)), float64(rows[1].ChangeCPU)/float64(floor.ChangeFloor))
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
