// Package content is data that both ends of a transfer can compute: a pod
// sends it, a client verifies it. It knows nothing about connections.
package content

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrDiffers is what Verifier.Write returns, wrapped, for data that is not the
// expected content.
var ErrDiffers = errors.New("content differs")

const blockSize = 8

// Fill fills p with the content of seed from the given offset on, in bytes.
func Fill(p []byte, seed uint64, offset int64) {
	var block [blockSize]byte
	for len(p) > 0 {
		binary.BigEndian.PutUint64(block[:], mix(seed+uint64(offset/blockSize)))
		n := copy(p, block[offset%blockSize:])
		p, offset = p[n:], offset+int64(n)
	}
}

// mix is the finalizer of splitmix64: neighbouring inputs give unrelated outputs.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Verifier is an io.Writer that compares what is written with the content of a
// seed. It is not safe for concurrent use.
type Verifier struct {
	seed   uint64
	offset int64
	want   []byte
}

// NewVerifier returns a Verifier that expects the content of seed from its beginning.
func NewVerifier(seed uint64) *Verifier { return &Verifier{seed: seed} }

// Offset returns how many bytes were right so far.
func (v *Verifier) Offset() int64 { return v.offset }

// Write compares p. Its error wraps ErrDiffers and names the first wrong byte.
func (v *Verifier) Write(p []byte) (int, error) {
	if cap(v.want) < len(p) {
		v.want = make([]byte, len(p))
	}
	want := v.want[:len(p)]
	Fill(want, v.seed, v.offset)
	for i := range p {
		if p[i] != want[i] {
			v.offset += int64(i)
			return i, fmt.Errorf("byte %d: %w", v.offset, ErrDiffers)
		}
	}
	v.offset += int64(len(p))
	return len(p), nil
}
