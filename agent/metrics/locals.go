package metrics

import (
	"github.com/ebb-lb/ebb/agent/endpoints"
	"github.com/ebb-lb/ebb/agent/reconcile"
	"github.com/ebb-lb/ebb/agent/service"
)

// locals knows the service ports whose Local policy leaves nobody on this node
// though there is somebody elsewhere.
type locals struct {
	nodeName string
	lacking  map[service.Name][]lack
}

// lack is one service port in one family.
type lack struct {
	v4, external bool
}

func newLocals(nodeName string) locals {
	return locals{nodeName: nodeName, lacking: make(map[service.Name][]lack)}
}

// update takes over what a sync was about.
func (l *locals) update(r reconcile.Report) {
	if r.Full {
		clear(l.lacking)
	}
	for _, v := range r.Services {
		if lacks := l.lacks(v); len(lacks) > 0 {
			l.lacking[v.Name] = lacks
		} else {
			delete(l.lacking, v.Name)
		}
	}
}

func (l *locals) lacks(v service.View) []lack {
	if v.Service == nil || v.Service.InternalPolicy != service.Local && v.Service.ExternalPolicy != service.Local {
		return nil
	}
	var all []lack
	for _, p := range v.Service.Ports {
		c := endpoints.Choose(endpoints.Inputs{Service: v.Service, Port: p, Endpoints: v.Endpoints[p.PortKey], NodeName: l.nodeName})
		for _, v4 := range []bool{true, false} {
			if c.InternalLocal && c.Verdict(endpoints.Internal, v4) == endpoints.Drop {
				all = append(all, lack{v4: v4})
			}
			if c.ExternalLocal && c.Verdict(endpoints.External, v4) == endpoints.Drop {
				all = append(all, lack{v4: v4, external: true})
			}
		}
	}
	return all
}

func (l *locals) count(v4 bool) (internal, external int) {
	for _, lacks := range l.lacking {
		for _, k := range lacks {
			switch {
			case k.v4 != v4:
			case k.external:
				external++
			default:
				internal++
			}
		}
	}
	return internal, external
}
