// Package watch brings what a cluster says into a service.Store, from the
// Kubernetes API or from a directory of manifests. It knows the API types,
// what of them matters to a proxy, and how each source tells of a change; it
// is the only place that does. It deliberately knows no map, and decides
// nothing about which endpoint gets a packet.
package watch
