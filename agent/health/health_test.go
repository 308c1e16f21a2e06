package health

import (
	"encoding/json"
	"errors"
	"net/http/httptest"
	"testing"
	"time"
)

func TestAnswers(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ready := func(s *State) { s.Synced(Applied{}); s.Attached(nil) }
	tests := []struct {
		name  string
		do    func(*State)
		after time.Duration
		want  int
	}{
		{"nothing synced yet", func(s *State) { s.Attached(nil) }, 0, 503},
		{"synced but not attached", func(s *State) { s.Synced(Applied{}) }, 0, 503},
		{"synced and attached", ready, 0, 200},
		{"an attachment is lost", func(s *State) { ready(s); s.Attached(errors.New("xdp is gone")) }, 0, 503},
		{"an update waits a little", func(s *State) { ready(s); s.Pending(start) }, 59 * time.Second, 200},
		{"an update waits too long", func(s *State) { ready(s); s.Pending(start) }, 61 * time.Second, 503},
		{"a later update does not hide an older one",
			func(s *State) { ready(s); s.Pending(start); s.Pending(start.Add(50 * time.Second)) }, 61 * time.Second, 503},
		{"the update was applied", func(s *State) { ready(s); s.Pending(start); s.Synced(Applied{}) }, 61 * time.Second, 200},
		{"shutting down", func(s *State) { ready(s); s.Closing() }, 0, 503},
	}
	for _, tc := range tests {
		for _, path := range []string{"/healthz", "/livez"} {
			t.Run(tc.name+path, func(t *testing.T) {
				now := start
				s := &State{Timeout: time.Minute, Now: func() time.Time { return now }}
				tc.do(s)
				now = now.Add(tc.after)
				w := httptest.NewRecorder()
				s.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
				if w.Code != tc.want {
					t.Errorf("status %d, want %d: %s", w.Code, tc.want, w.Body)
				}
				var body map[string]any
				if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
					t.Fatal(err)
				}
				if body["healthy"] != (tc.want == 200) {
					t.Errorf("healthy is %v with status %d", body["healthy"], w.Code)
				}
				if _, has := body["nodeEligible"]; has != (path == "/healthz") {
					t.Errorf("nodeEligible: %v in the answer to %s", has, path)
				}
			})
		}
	}
}

func TestTheBodySaysWhenASyncWasLastComplete(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		complete func() time.Time
		want     any
	}{
		"an earlier agent's": {func() time.Time { return at }, "2026-01-01T00:00:00Z"},
		"never":              {func() time.Time { return time.Time{} }, nil},
		"nobody knows":       {nil, nil},
	} {
		s := &State{Timeout: time.Minute, Now: time.Now, Complete: tc.complete}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
		var body map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
		if body["lastCompleteSync"] != tc.want || w.Code != 503 {
			t.Errorf("%s: status %d, %v, want 503, %v", name, w.Code, body["lastCompleteSync"], tc.want)
		}
	}
}
