package plan

import (
	"net/netip"
	"testing"

	"github.com/ebb-lb/ebb/agent/service"
)

func TestWhichServicesNeedPacketsOfPods(t *testing.T) {
	base := func(change func(*service.Service)) *service.Service {
		svc := &service.Service{
			ClusterIPs:      []netip.Addr{netip.MustParseAddr("10.96.0.1")},
			LoadBalancerIPs: []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1")},
			Ports:           []service.Port{{PortKey: service.PortKey{Proto: service.TCP}, Port: 80}},
		}
		change(svc)
		return svc
	}
	ranges := func(text ...string) func(*service.Service) {
		return func(s *service.Service) {
			for _, r := range text {
				s.LoadBalancerSourceRanges = append(s.LoadBalancerSourceRanges, netip.MustParsePrefix(r))
			}
		}
	}
	pods := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
	for _, tc := range []struct {
		name   string
		pods   []netip.Prefix
		change func(*service.Service)
		want   bool
	}{
		{"an ordinary one", pods, func(*service.Service) {}, false},
		{"in packet mode", pods, func(s *service.Service) { s.ByPacket = true }, true},
		{"of SCTP", pods, func(s *service.Service) { s.Ports[0].Proto = service.SCTP }, true},
		{"ranges with some pods", pods, ranges("10.244.7.0/24"), true},
		{"ranges with all pods", pods, ranges("10.0.0.0/8"), false},
		{"ranges without pods", pods, ranges("192.0.2.0/24"), false},
		{"ranges, pods are not known", nil, ranges("192.0.2.0/24"), true},
		{"ranges that are none", nil, ranges("0.0.0.0/0"), false},
		{"ranges without a load balancer", nil, func(s *service.Service) { ranges("192.0.2.0/24")(s); s.LoadBalancerIPs = nil }, false},
		{"ranges, a load balancer of a family without a ClusterIP", nil, func(s *service.Service) {
			ranges("192.0.2.0/24")(s)
			s.LoadBalancerIPs = s.LoadBalancerIPs[1:]
		}, false},
	} {
		if got := NeedsPackets(base(tc.change), tc.pods); got != tc.want {
			t.Errorf("%s: %t", tc.name, got)
		}
	}
}
