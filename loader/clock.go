package loader

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/bpf"
)

// KernelHZ returns CONFIG_HZ of the running kernel: the coarse clock advances
// once per jiffy, so its resolution is 1/HZ.
func KernelHZ() (uint32, error) {
	var res unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &res); err != nil {
		return 0, fmt.Errorf("read the resolution of the coarse clock: %w", err)
	}
	return hzOf(time.Duration(res.Nano()))
}

// hzOf rounds, because the kernel rounds the resolution (3333333 ns at 300 Hz).
func hzOf(resolution time.Duration) (uint32, error) {
	if resolution <= 0 || resolution > time.Second {
		return 0, fmt.Errorf("resolution of the coarse clock is %s: not a jiffy", resolution)
	}
	return uint32((time.Second + resolution/2) / resolution), nil
}

// TickShift returns the number of bits to shift jiffies right so that one tick,
// 2^shift jiffies, is as close to one second as it can be. hz is in Hz.
func TickShift(hz uint32) uint32 {
	var best uint32
	for shift := uint32(1); shift < 32; shift++ {
		if distance(shift, hz) >= distance(best, hz) {
			break
		}
		best = shift
	}
	return best
}

// distance returns how far 2^shift jiffies are from a second, in jiffies.
func distance(shift, hz uint32) int64 {
	d := int64(1)<<shift - int64(hz)
	return max(d, -d)
}

// Clock reads the time the programs stamp on flows. It is safe for concurrent
// use. The owner closes it.
type Clock struct {
	prog  *ebpf.Program
	hz    uint32
	shift uint32
}

// clockReading is what the clock program writes its answer into: struct
// clock_reading in bpf/clock.c.
type clockReading struct {
	Jiffies   uint64
	Monotonic uint64 // nanoseconds
}

// NewClock loads the program that reads jiffies.
func NewClock() (*Clock, error) {
	hz, err := KernelHZ()
	if err != nil {
		return nil, fmt.Errorf("new clock: %w", err)
	}
	c := &Clock{hz: hz, shift: TickShift(hz)}
	err = objectLoader{}.object("clock", bpf.LoadClock, map[string]**ebpf.Program{programClock: &c.prog})
	if err != nil {
		return nil, fmt.Errorf("new clock: %w", err)
	}
	return c, nil
}

// Now returns the current tick. Ticks wrap around; compare them by difference.
func (c *Clock) Now() (uint32, error) {
	var now clockReading
	if _, err := c.prog.Run(&ebpf.RunOptions{Context: now, ContextOut: &now}); err != nil {
		return 0, fmt.Errorf("read jiffies: %w", err)
	}
	return uint32(now.Jiffies >> c.shift), nil
}

// Tick returns the length of one tick, about a second.
func (c *Clock) Tick() time.Duration {
	return time.Second << c.shift / time.Duration(c.hz)
}

// Close releases the program.
func (c *Clock) Close() error { return c.prog.Close() }
