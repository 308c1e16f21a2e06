package watch

import (
	"log/slog"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// refusal notes that the server has no such resource, or does not let this
// client have it. The agent then goes on without; the informer keeps asking,
// for a server may learn. A nil refusal is of a resource that must be there.
type refusal struct {
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

// because reports whether err is a refusal that is allowed, and logs the first.
func (r *refusal) because(err error, log *slog.Logger) bool {
	if r == nil || !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
		return false
	}
	r.once.Do(func() {
		log.Warn("resource refused, going on without", "error", err)
		close(r.refused)
	})
	return true
}
