// Package bpf is the datapath: the C programs, and the only definition of what
// is in the maps. Everything but this file and the C sources is generated;
// nothing here knows what a Service is.
package bpf

//go:generate go run ./crc32c -o wire/crc32c_table.h
//go:generate go tool bpf2go -tags linux -target bpfel -type ip_addr -type flow_key -type flow -type half_flow -type given_backend -type flows_pressure -type flow_timeout -type frontend_key -type frontend -type table -type service_port -type backend -type backend_counts -type runtime_values -type device -type source_range_key -type cidr_key -type fragment_key -type fragment_ports -type socket_key -type socket_peer -type socket_held -type socket_way -type address_flag -type affinity_key -type affinity_value -type verdict -type hook -type flow_flag -type route_flag -type backend_state -type backend_flag -type frontend_flag -type device_flag -type route_state -type route_state_flag -type neighbour_key -type neighbour -type station_key Layout layout.c -- -Iinclude -I.
//go:generate go tool bpf2go -tags linux -target bpfel -no-global-types XDP xdp.c -- -Iinclude -I.
//go:generate go tool bpf2go -tags linux -target bpfel -no-global-types -type unknown_flow TC tc.c -- -Iinclude -I.
//go:generate go tool bpf2go -tags linux -target bpfel -no-global-types Pod pod.c -- -Iinclude -I.
//go:generate go tool bpf2go -tags linux -target bpfel -no-global-types Sock sock.c -- -Iinclude -I.
//go:generate go tool bpf2go -tags linux -target bpfel -type clock_reading Clock clock.c -- -Iinclude -I.
//go:generate go tool bpf2go -tags linux -target bpfel -no-global-types -type collection Collect collect.c -- -Iinclude -I.
