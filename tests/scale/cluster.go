package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/ebb-lb/ebb/agent/service"
)

const (
	nodeName = "here"
	nodes    = 100
)

// cluster is many services that are alike. Pods come and go: each change
// replaces one endpoint by another address.
type cluster struct {
	size
	pods    [][]uint32 // by service, numbers that make addresses
	nextPod uint32
	rng     *rand.Rand
}

func newCluster(s size) *cluster {
	c := &cluster{size: s, rng: rand.New(rand.NewPCG(1, 2))}
	for range s.services {
		var pods []uint32
		for range s.endpoints {
			pods = append(pods, c.newPod())
		}
		c.pods = append(c.pods, pods)
	}
	return c
}

func (c *cluster) newPod() uint32 {
	c.nextPod++
	return c.nextPod
}

// change replaces one endpoint of some service and returns which.
func (c *cluster) change() int {
	i := c.rng.IntN(c.services)
	c.pods[i][c.rng.IntN(c.endpoints)] = c.newPod()
	return i
}

func (c *cluster) name(i int) service.Name {
	return service.Name{Namespace: fmt.Sprintf("ns%d", i%100), Name: fmt.Sprintf("service-%d", i)}
}

func clusterIP(i int) netip.Addr { return addr(10<<24|96<<16, uint32(i)+1) }

func podIP(pod uint32) netip.Addr { return addr(11<<24, pod) }

// addr is the n-th address after base.
func addr(base, n uint32) netip.Addr {
	a := base + n
	return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
}

func nodeOf(pod uint32) string {
	if pod%nodes == 0 {
		return nodeName
	}
	return fmt.Sprintf("node-%d", pod%nodes)
}

func (c *cluster) service(i int) *service.Service {
	return &service.Service{
		Name: c.name(i), ClusterIPs: []netip.Addr{clusterIP(i)},
		Ports: []service.Port{{PortKey: service.PortKey{Name: "http", Proto: service.TCP}, Port: 80}},
	}
}

func (c *cluster) slice(i int) *service.Slice {
	n := c.name(i)
	s := &service.Slice{
		Key: service.Name{Namespace: n.Namespace, Name: n.Name + "-1"}, Service: n,
		Ports: []service.SlicePort{{PortKey: service.PortKey{Name: "http", Proto: service.TCP}, Port: 8080}},
	}
	for _, pod := range c.pods[i] {
		s.Endpoints = append(s.Endpoints, service.SliceEndpoint{Addr: podIP(pod), NodeName: nodeOf(pod), Ready: true, Serving: true})
	}
	return s
}
