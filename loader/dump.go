package loader

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// dumpAttempts bounds how often a netlink dump is repeated.
const dumpAttempts = 10

// dump repeats a netlink dump that others have changed things under: its result
// may lack entries, and what is missing would be taken for gone.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	var res []T
	var err error
	for range dumpAttempts {
		res, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return res, err
}
