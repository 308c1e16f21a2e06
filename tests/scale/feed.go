package main

import (
	"context"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/agent/watch"
)

// feed is a way for a cluster to reach a store.
type feed interface {
	// run delivers all there is, then waits until ctx is done.
	run(ctx context.Context) error
	// changed delivers the endpoints of a service anew.
	changed(i int)
}

// direct puts plain values into the store.
type direct struct {
	*cluster
	store *service.Store
}

func (d *direct) run(ctx context.Context) error {
	for i := range d.services {
		d.store.PutService(d.service(i))
		d.store.PutSlice(d.slice(i))
	}
	d.store.PutNode(service.Node{Name: nodeName, Known: true})
	d.store.SetSynced()
	<-ctx.Done()
	return nil
}

func (d *direct) changed(i int) { d.store.PutSlice(d.slice(i)) }

// informed is a Kubernetes source on a client without a server: lists and
// watches are answered from memory, all behind them is real.
type informed struct {
	*cluster
	source *watch.Kubernetes
	events *apiwatch.FakeWatcher
}

func newInformed(c *cluster, store *service.Store) *informed {
	f := &informed{cluster: c, events: apiwatch.NewFakeWithChanSize(c.rate, false)}
	client := fake.NewClientset()
	client.PrependReactor("list", "services", func(k8stesting.Action) (bool, runtime.Object, error) {
		list := &corev1.ServiceList{}
		for i := range c.services {
			list.Items = append(list.Items, *c.serviceObject(i))
		}
		return true, list, nil
	})
	client.PrependReactor("list", "endpointslices", func(k8stesting.Action) (bool, runtime.Object, error) {
		list := &discoveryv1.EndpointSliceList{}
		for i := range c.services {
			list.Items = append(list.Items, *c.sliceObject(i))
		}
		return true, list, nil
	})
	client.PrependWatchReactor("endpointslices", func(k8stesting.Action) (bool, apiwatch.Interface, error) {
		return true, f.events, nil
	})
	f.source = watch.NewKubernetes(client, watch.Options{NodeName: nodeName}, store, slog.New(slog.DiscardHandler))
	return f
}

func (f *informed) run(ctx context.Context) error { return f.source.Run(ctx) }

func (f *informed) changed(i int) { f.events.Modify(f.sliceObject(i)) }

func (c *cluster) serviceObject(i int) *corev1.Service {
	n, ip := c.name(i), clusterIP(i).String()
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: n.Namespace, Name: n.Name, ResourceVersion: "1", UID: "u"},
		Spec: corev1.ServiceSpec{
			ClusterIP: ip, ClusterIPs: []string{ip},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
		},
	}
}

func (c *cluster) sliceObject(i int) *discoveryv1.EndpointSlice {
	n, yes, no := c.name(i), true, false
	port, name, tcp := int32(8080), "http", corev1.ProtocolTCP
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: n.Namespace, Name: n.Name + "-1", ResourceVersion: "1", UID: "u",
			Labels: map[string]string{discoveryv1.LabelServiceName: n.Name},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &tcp}},
	}
	for _, pod := range c.pods[i] {
		node := nodeOf(pod)
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{podIP(pod).String()}, NodeName: &node,
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: n.Namespace, Name: fmt.Sprintf("%s-%d", n.Name, pod)},
		})
	}
	return s
}
