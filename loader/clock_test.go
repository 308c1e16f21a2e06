package loader

import (
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"
)

func TestHZIsReadFromTheResolution(t *testing.T) {
	for res, want := range map[time.Duration]uint32{
		time.Millisecond: 1000, 4 * time.Millisecond: 250, 3333333: 300, 10 * time.Millisecond: 100,
	} {
		if got, err := hzOf(res); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", res, got, err, want)
		}
	}
	for _, res := range []time.Duration{0, -1, 2 * time.Second} {
		if got, err := hzOf(res); err == nil {
			t.Errorf("%s: got %d, want an error", res, got)
		}
	}
}

func TestTickIsTheNearestToASecond(t *testing.T) {
	for hz, want := range map[uint32]uint32{24: 4, 64: 6, 100: 7, 128: 7, 250: 8, 256: 8, 300: 8, 1000: 10, 1024: 10, 1: 0} {
		if got := TickShift(hz); got != want {
			t.Errorf("%d Hz: got shift %d, want %d", hz, got, want)
		}
	}
}

func TestClockReadsTheKernelsJiffies(t *testing.T) {
	needRoot(t)
	c, err := NewClock()
	must(t, "new clock", err)
	defer c.Close()
	before := kernelJiffies(t) >> c.shift
	tick, err := c.Now()
	must(t, "now", err)
	after := kernelJiffies(t) >> c.shift
	if tick-uint32(before) > uint32(after-before) {
		t.Errorf("tick %d is not within [%d, %d]", tick, uint32(before), uint32(after))
	}
	if c.Tick() < 500*time.Millisecond || c.Tick() > 2*time.Second {
		t.Errorf("a tick is %s", c.Tick())
	}
	if got := c.Tick() * time.Duration(c.hz); got != time.Second<<c.shift {
		t.Errorf("hz ticks take %s, want %s", got, time.Second<<c.shift)
	}
}

// kernelJiffies asks another source than the clock does.
func kernelJiffies(t testing.TB) uint64 {
	t.Helper()
	b, err := os.ReadFile("/proc/timer_list")
	if err != nil {
		t.Skipf("no timer list to compare with: %v", err)
	}
	m := regexp.MustCompile(`(?m)^jiffies: (\d+)$`).FindSubmatch(b)
	if m == nil {
		t.Skip("the timer list has no jiffies")
	}
	j, err := strconv.ParseUint(string(m[1]), 10, 64)
	must(t, "parse jiffies", err)
	return j
}
