package content

import (
	"bytes"
	"errors"
	"testing"
)

func TestContentDoesNotDependOnHowItIsCut(t *testing.T) {
	whole := make([]byte, 1000)
	Fill(whole, 7, 0)
	for _, size := range []int{1, 3, 8, 13, 999} {
		var parts []byte
		for off := 0; off < len(whole); off += size {
			p := make([]byte, min(size, len(whole)-off))
			Fill(p, 7, int64(off))
			parts = append(parts, p...)
		}
		if !bytes.Equal(parts, whole) {
			t.Errorf("in parts of %d the content is another", size)
		}
	}
}

func TestSeedsHaveDifferentContent(t *testing.T) {
	a, b := make([]byte, 64), make([]byte, 64)
	Fill(a, 1, 0)
	Fill(b, 1000, 0)
	if bytes.Equal(a, b) {
		t.Error("two seeds, one content")
	}
}

func TestVerifierFindsWhatIsWrong(t *testing.T) {
	good := make([]byte, 100)
	Fill(good, 3, 0)
	tests := []struct {
		name   string
		change func([]byte) []byte
		offset int64
		wrong  bool
	}{
		{"right content passes", func(b []byte) []byte { return b }, 100, false},
		{"one bit flipped is found", func(b []byte) []byte { b[41] ^= 1; return b }, 41, true},
		{"a missing byte is found", func(b []byte) []byte { return append(b[:20], b[21:]...) }, 20, true},
		{"a repeated part is found", func(b []byte) []byte { copy(b[16:], b[:16]); return b }, 16, true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			v := NewVerifier(3)
			data := tc.change(bytes.Clone(good))
			_, err := v.Write(data[:10])
			if err == nil {
				_, err = v.Write(data[10:])
			}
			if errors.Is(err, ErrDiffers) != tc.wrong || v.Offset() != tc.offset {
				t.Errorf("offset %d, error %v; want offset %d, wrong %t", v.Offset(), err, tc.offset, tc.wrong)
			}
		})
	}
}
