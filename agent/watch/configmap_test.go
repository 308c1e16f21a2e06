package watch

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAConfigMapIsReadAsAManifest(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/api/v1/namespaces/kube-system/configmaps/kube-proxy":
			_, _ = w.Write([]byte(`{"metadata": {"name": "kube-proxy"}, "data": {"config.conf": "mode: nftables\n"}}`))
		case "/api/v1/namespaces/kube-system/configmaps/none":
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}`))
		default:
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403}`))
		}
	}))
	defer srv.Close()
	a := API{Kubeconfig: kubeconfigFor(t, srv.URL)}
	text, err := a.ConfigMap(t.Context(), "kube-system", "kube-proxy")
	if err != nil || !strings.HasPrefix(string(text), "apiVersion: v1\n") || !strings.Contains(string(text), "kind: ConfigMap\n") ||
		!strings.Contains(string(text), "mode: nftables") {
		t.Errorf("%v\n%s", err, text)
	}
	if text, err := a.ConfigMap(t.Context(), "kube-system", "none"); err != nil || text != nil {
		t.Errorf("one that is not there: %v\n%s", err, text)
	}
	if _, err := a.ConfigMap(t.Context(), "default", "kube-proxy"); err == nil || !strings.HasPrefix(err.Error(), "get ConfigMap default/kube-proxy: ") {
		t.Errorf("no right to: %v", err)
	}
}
