// Command benchnet measures real traffic through network namespaces: a client, a
// node and its pods. It compares plain routing with two load balancers on the node:
// nftables rules as kube-proxy writes them, and ebb in TC and in XDP, each with few
// and with many Services.
//
//	client ── bridge ── uplink of the node ── veths ── pods
//
// All contenders are set up at the start and take turns, so that what else the
// machine does disturbs all of them alike. Each turn is divided by the turn of plain
// routing in the same round.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// config is what the command line says.
type config struct {
	rounds   int
	turn     time.Duration
	only     string
	services []int
	programs []program
	nice     int
}

// program is an ebb binary. Several of them compete in one run.
type program struct{ label, path string }

func main() {
	cfg := config{services: []int{1, 10_000}}
	flag.IntVar(&cfg.rounds, "rounds", 21, "how often every contender takes its turn")
	flag.DurationVar(&cfg.turn, "turn", 200*time.Millisecond, "duration of a turn")
	flag.StringVar(&cfg.only, "only", "", "measure only what contains one of these words, separated by commas, in its contender or row")
	flag.IntVar(&cfg.nice, "nice", -20, "nice value of the load generators and servers")
	flag.Func("services", "numbers of Services, separated by commas (default 1,10000)", cfg.setServices)
	flag.Func("ebb", "ebb binary, as PATH or LABEL=PATH; repeat it to compare several (default bin/ebb)", cfg.addProgram)
	flag.Parse()
	if len(cfg.programs) == 0 {
		if err := cfg.addProgram("bin/ebb"); err != nil {
			fmt.Fprintln(os.Stderr, "benchnet: -ebb:", err)
			os.Exit(2)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "benchnet:", err)
		os.Exit(1)
	}
}

func (cfg *config) setServices(text string) error {
	cfg.services = nil
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 || n > maxServices {
			return fmt.Errorf("%q must be a number from 1 to %d", word, maxServices)
		}
		cfg.services = append(cfg.services, n)
	}
	return nil
}

func (cfg *config) addProgram(text string) error {
	label, path, labelled := strings.Cut(text, "=")
	if !labelled {
		label, path = "", text
	}
	path, err := filepath.Abs(path) // it is started with another working directory
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return err
	}
	cfg.programs = append(cfg.programs, program{label, path})
	return nil
}

func run(ctx context.Context, cfg config) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("needs root: creates network namespaces and loads programs")
	}
	// Threads of the generators block in system calls. With a P for each of them none
	// has to wait for one when the call returns.
	runtime.GOMAXPROCS(256)
	before := loadAverage()
	c, err := newComparison(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.measure(ctx); err != nil {
		return err
	}
	c.print(os.Stdout)
	fmt.Printf("\nMedians of %d turns of %v; in brackets the ratio to routing: median and quartiles over the rounds.\n", cfg.rounds, cfg.turn)
	fmt.Printf("%s, load average %s before and %s after the run.\n", machine(), before, loadAverage())
	return nil
}

// loadAverage returns the load of the last minute.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

func machine() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		release = []byte("unknown")
	}
	return fmt.Sprintf("Linux %s, %d CPUs", strings.TrimSpace(string(release)), runtime.NumCPU())
}
