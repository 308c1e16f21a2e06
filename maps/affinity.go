package maps

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
)

// AffinityKey is a client and the service port it has a backend of, by whatever
// frontend.
type AffinityKey struct {
	Client      netip.Addr
	ServicePort ServicePortID
}

func compareAffinityKeys(a, b AffinityKey) int {
	return cmp.Or(cmp.Compare(a.ServicePort, b.ServicePort), a.Client.Compare(b.Client))
}

// Affinity is the backend a client keeps (Kubernetes sessionAffinity ClientIP).
// It no longer counts once the backend is no candidate any more, or the timeout
// of the service has passed since Used.
type Affinity struct {
	Backend    BackendID
	Generation uint32
	// Used is when the last connection began, CLOCK_MONOTONIC, whole seconds.
	Used time.Duration
}

// Affinities is access to the map affinity. The datapath writes it, and evicts
// the entry least recently used when it is full.
type Affinities struct{ m *ebpf.Map }

// Each calls fn for every entry, in no order, until fn returns false.
func (a Affinities) Each(fn func(AffinityKey, Affinity) bool) error {
	err := each(a.m, func(k *bpf.LayoutAffinityKey, v *bpf.LayoutAffinityValue) bool {
		return fn(fromAffinityKey(k), fromAffinity(v))
	})
	if err != nil {
		return fmt.Errorf("read affinity: %w", err)
	}
	return nil
}

// Put inserts or replaces an entry, for tests: they belong to the datapath.
func (a Affinities) Put(k AffinityKey, v Affinity) error {
	if err := checkAddr(k.Client); err != nil {
		return fmt.Errorf("put affinity of %s: %w", k.Client, err)
	}
	key, value := toAffinityKey(k), toAffinity(v)
	if err := a.m.Put(&key, &value); err != nil {
		return fmt.Errorf("put affinity of %s: %w", k.Client, fullError(err))
	}
	return nil
}

// Delete removes the entry of k. An absent entry is not an error.
func (a Affinities) Delete(k AffinityKey) error {
	if checkAddr(k.Client) != nil {
		return nil // cannot be in the map, and must not be taken for what is
	}
	key := toAffinityKey(k)
	if err := a.m.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete affinity of %s: %w", k.Client, err)
	}
	return nil
}
