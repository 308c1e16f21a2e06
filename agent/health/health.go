// Package health answers the probes of external balancers and of the kubelet
// (kube-proxy's pkg/proxy/healthcheck/proxy_health.go). It knows what was last
// synced and what is attached because it is told; it never asks the API server.
package health

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// State is the health of one agent. The zero State is not ready. It is safe
// for concurrent use.
type State struct {
	// Timeout is how long an update may wait to be applied before the agent
	// counts as unhealthy (kube-proxy: twice the sync period, 60 s).
	Timeout time.Duration
	// Now is the clock, usually time.Now.
	Now func() time.Time
	// Complete, if not nil, returns when a sync last left nothing to do, also
	// one of an agent before this one; zero if none is known. Until this agent
	// has synced, what is pinned is as old as that.
	Complete func() time.Time

	mu       sync.Mutex
	synced   time.Time // end of the last complete sync
	pending  time.Time // oldest update not yet applied
	attached error
	verified bool
	closing  bool
}

// Pending notes that an update received at t is not applied yet.
func (s *State) Pending(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending.IsZero() {
		s.pending = t
	}
}

// Synced notes that everything received is in the maps.
func (s *State) Synced() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced, s.pending = s.Now(), time.Time{}
}

// Attached notes the last verification of the attachments; nil: all are there.
func (s *State) Attached(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attached, s.verified = err, true
}

// Closing makes every answer 503 from now on.
func (s *State) Closing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
}

// answer is the body of both probes; the first fields are kube-proxy's.
type answer struct {
	LastUpdated  time.Time `json:"lastUpdated"`
	CurrentTime  time.Time `json:"currentTime"`
	NodeEligible *bool     `json:"nodeEligible,omitempty"`
	Healthy      bool      `json:"healthy"`
	Reason       string    `json:"reason,omitempty"`
	LastComplete time.Time `json:"lastCompleteSync,omitzero"`
}

func (s *State) answer() answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Now()
	a := answer{LastUpdated: s.synced, CurrentTime: now}
	if s.Complete != nil {
		a.LastComplete = s.Complete()
	}
	switch {
	case s.closing:
		a.Reason = "shutting down"
	case s.synced.IsZero():
		a.Reason = "no complete sync yet"
	case !s.verified:
		a.Reason = "attachments not verified yet"
	case s.attached != nil:
		a.Reason = s.attached.Error()
	case !s.pending.IsZero() && now.Sub(s.pending) > s.Timeout:
		a.Reason = "an update has waited too long to be applied"
	default:
		a.Healthy, a.LastUpdated = true, now
	}
	return a
}

// Handler serves /healthz (external balancers) and /livez (the kubelet).
func (s *State) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		a := s.answer()
		eligible := true
		a.NodeEligible = &eligible
		write(w, a)
	})
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { write(w, s.answer()) })
	return mux
}

func write(w http.ResponseWriter, a answer) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if a.Healthy {
		w.WriteHeader(http.StatusOK)
	} else {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// The prober may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(a)
}
