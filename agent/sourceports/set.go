package sourceports

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Range is first to last, both included. The zero Range stands for none.
type Range struct{ Min, Max uint16 }

// String formats r as a flag takes it.
func (r Range) String() string {
	if r.Min == r.Max {
		return strconv.Itoa(int(r.Min))
	}
	return fmt.Sprintf("%d-%d", r.Min, r.Max)
}

// Set is a set of ports: a bit for each, as the kernel has it. It is a value.
type Set [1 << 16 / 64]uint64

// SetOf returns the ports of all ranges.
func SetOf(ranges ...Range) (s Set) {
	for _, r := range ranges {
		for p := int(r.Min); p <= int(r.Max); p++ {
			s[p/64] |= 1 << (p % 64)
		}
	}
	return s
}

// ParseSet reads ports as the kernel writes them: 80,1024-29999.
func ParseSet(text string) (Set, error) {
	var ranges []Range
	for part := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		if part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		low, err1 := strconv.ParseUint(first, 10, 16)
		high, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || low > high {
			return Set{}, fmt.Errorf("%q is no list of ports", text)
		}
		ranges = append(ranges, Range{uint16(low), uint16(high)})
	}
	return SetOf(ranges...), nil
}

// Ranges returns the ports of s, in order and as few ranges as possible.
func (s Set) Ranges() (all []Range) {
	for p := 0; p < len(s)*64; p++ {
		if !s.has(p) {
			continue
		}
		first := p
		for p+1 < len(s)*64 && s.has(p+1) {
			p++
		}
		all = append(all, Range{uint16(first), uint16(p)})
	}
	return all
}

func (s *Set) has(p int) bool { return s[p/64]&(1<<(p%64)) != 0 }

// String formats s as the kernel takes it.
func (s Set) String() string {
	parts := make([]string, 0, 4)
	for _, r := range s.Ranges() {
		parts = append(parts, r.String())
	}
	return strings.Join(parts, ",")
}

// Len returns how many ports s has.
func (s Set) Len() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// Or returns the ports of either.
func (s Set) Or(t Set) Set {
	for i := range s {
		s[i] |= t[i]
	}
	return s
}

// And returns the ports of both.
func (s Set) And(t Set) Set {
	for i := range s {
		s[i] &= t[i]
	}
	return s
}

// Without returns the ports of s that t does not have.
func (s Set) Without(t Set) Set {
	for i := range s {
		s[i] &^= t[i]
	}
	return s
}
