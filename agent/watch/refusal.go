package watch

import (
	"log/slog"
	"sync"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// refusal notes that the server has no such resource, or does not let this
// client have it. The agent then goes on without; the informer keeps asking,
// for a server may learn. A nil refusal is of a resource that must be there.
//
// A server that has just been started forbids everything until it knows who may
// do what. So that something is forbidden counts only after the same server has
// allowed all that must be there.
type refusal struct {
	allowed atomic.Bool // all that must be there
	once    sync.Once
	refused chan struct{}
}

func newRefusal() *refusal { return &refusal{refused: make(chan struct{})} }

// done is closed once the resource was refused.
func (r *refusal) done() <-chan struct{} {
	if r == nil {
		return nil
	}
	return r.refused
}

// othersAllowed notes that the server has given all that must be there.
func (r *refusal) othersAllowed() {
	if r != nil {
		r.allowed.Store(true)
	}
}

// because reports whether err may be a refusal that is allowed, and logs the
// first that counts.
func (r *refusal) because(err error, log *slog.Logger) bool {
	if r == nil || !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
		return false
	}
	if apierrors.IsForbidden(err) && !r.allowed.Load() {
		return true
	}
	r.once.Do(func() {
		log.Warn("resource refused, going on without", "error", err)
		close(r.refused)
	})
	return true
}
