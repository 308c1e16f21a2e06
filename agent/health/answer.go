package health

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/ebb-lb/ebb/agent/drain"
	"github.com/ebb-lb/ebb/agent/service"
)

// weightHeader tells balancers how many endpoints a node has.
const weightHeader = "X-Load-Balancing-Endpoint-Weight"

// Current is what a probe is answered from.
type Current struct {
	View
	Time time.Time
	// Order is the one in force on the node, nil if there is none.
	Order *drain.Order
}

// drained returns why balancers should send nothing new to the node; empty:
// they may.
func (c Current) drained() string {
	switch {
	case c.Order != nil:
		return c.Order.String()
	case !c.Node.Eligible:
		return c.Node.Drained
	}
	return ""
}

// nodeAnswer is the body of both probes; the first fields are kube-proxy's.
type nodeAnswer struct {
	LastUpdated     time.Time               `json:"lastUpdated"`
	CurrentTime     time.Time               `json:"currentTime"`
	NodeEligible    *bool                   `json:"nodeEligible,omitempty"`
	Healthy         bool                    `json:"healthy"`
	Status          map[Family]familyAnswer `json:"status"`
	Reason          string                  `json:"reason,omitempty"`
	LiveConnections *int                    `json:"liveConnections,omitempty"`
	LastComplete    time.Time               `json:"lastCompleteSync,omitzero"`
	Unserved        []string                `json:"unservedUplinks,omitempty"`
	Warnings        []string                `json:"warnings,omitempty"`
}

type familyAnswer struct {
	LastUpdated time.Time `json:"lastUpdated"`
	Healthy     bool      `json:"healthy"`
}

// livez answers the kubelet. A healthy agent is up to date now, whenever there
// last was something to do.
func (c Current) livez() (int, nodeAnswer) {
	a := nodeAnswer{
		LastUpdated: c.Time, CurrentTime: c.Time, Healthy: c.Node.Healthy,
		Status: make(map[Family]familyAnswer), Reason: c.Node.Reason,
		LiveConnections: c.Node.Connections, LastComplete: c.Node.Complete,
		Unserved: c.Node.Unserved, Warnings: c.Node.Warnings,
	}
	if !a.Healthy {
		a.LastUpdated = c.Node.Synced
	}
	for _, f := range c.Node.Families {
		a.Status[f] = familyAnswer{LastUpdated: a.LastUpdated, Healthy: a.Healthy}
	}
	return status(a.Healthy), a
}

// healthz answers balancers: a drained node is healthy, and refused.
func (c Current) healthz() (int, nodeAnswer) {
	code, a := c.livez()
	drained := c.drained()
	eligible := drained == ""
	a.NodeEligible = &eligible
	if eligible {
		return code, a
	}
	a.LastUpdated = c.Node.Synced
	if a.Reason != "" {
		a.Reason += "; "
	}
	a.Reason += "drained: " + drained
	return http.StatusServiceUnavailable, a
}

// serviceAnswer is the body of a health check node port; the first fields are
// kube-proxy's.
type serviceAnswer struct {
	Service             serviceName `json:"service"`
	LocalEndpoints      int         `json:"localEndpoints"`
	ServiceProxyHealthy bool        `json:"serviceProxyHealthy"`
	DrainingEndpoints   int         `json:"drainingEndpoints"`
	NodeEligible        bool        `json:"nodeEligible"`
	LiveConnections     *int        `json:"liveConnections,omitempty"`
	Reason              string      `json:"reason,omitempty"`
}

type serviceName struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// service answers for one service in one family. A service that is gone, or not
// on this port any more, has no endpoints.
func (c Current) service(name service.Name, f Family, port uint16) (int, serviceAnswer) {
	drained := c.drained()
	a := serviceAnswer{
		Service:             serviceName{name.Namespace, name.Name},
		ServiceProxyHealthy: c.Node.Healthy, NodeEligible: drained == "",
	}
	svc, known := c.Service(name)
	known = known && svc.Port == port
	if known {
		count := svc.Endpoints[f]
		a.LocalEndpoints, a.DrainingEndpoints, a.LiveConnections = count.Ready, count.Draining, svc.Connections
	}
	switch {
	case !known:
		a.Reason = "the service is not on this port any more"
	case !c.Node.Healthy:
		a.Reason = c.Node.Reason
	case a.LocalEndpoints == 0:
		a.Reason = "no ready endpoint on this node"
	case c.Node.DrainServices && drained != "":
		a.Reason = "drained: " + drained
	}
	return status(a.Reason == ""), a
}

func status(ok bool) int {
	if ok {
		return http.StatusOK
	}
	return http.StatusServiceUnavailable
}

// NodeHandler serves /healthz (external balancers) and /livez (the kubelet).
// count, which may be nil, is told each answer.
func NodeHandler(now func() Current, count func(probe string, code int)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var code int
		var a nodeAnswer
		switch r.URL.Path {
		case "/healthz":
			code, a = now().healthz()
		case "/livez":
			code, a = now().livez()
		default:
			http.NotFound(w, r)
			return
		}
		if count != nil {
			count(r.URL.Path[1:], code)
		}
		write(w, code, a)
	})
}

// ServiceHandler serves the health check node port of one service in one
// family, whatever is asked for.
func ServiceHandler(now func() Current, name service.Name, f Family, port uint16) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		code, a := now().service(name, f, port)
		w.Header().Set(weightHeader, strconv.Itoa(a.LocalEndpoints))
		write(w, code, a)
	})
}

// Handler is NodeHandler of s alone.
func (s *State) Handler() http.Handler {
	return NodeHandler(func() Current {
		v, _ := s.View()
		return Current{View: v, Time: s.Now()}
	}, nil)
}

func write(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	// The prober may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(body)
}
