/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* All maps, one line of purpose each. Sizes are defaults; the agent sets them when it creates the
 * maps. */
#ifndef EBB_ABI_MAPS_H
#define EBB_ABI_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi/types.h"

/* frontend address, port, protocol -> service port and its tables */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct frontend_key);
	__type(value, struct frontend);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} frontends SEC(".maps");

/* id -> names of a service port; the datapath does not read it */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct service_port);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} service_ports SEC(".maps");

/* index -> backend */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << 15);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

/* all lookup tables end to end: backend indexes */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << 22);
	__type(key, __u32);
	__type(value, __u32);
	__uint(map_flags, BPF_F_MMAPABLE);
} slots SEC(".maps");

/* tuple -> complete rewrite; two entries per established connection. Evicts nothing */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 18);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* the same for what is not proved yet: a flood evicts only other beginnings */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct flow_key);
	__type(value, struct half_flow);
	__uint(map_flags, BPF_F_NO_COMMON_LRU);
} half_open SEC(".maps");

/* the same for connections that are closed: closes evict only other closed ones */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct flow_key);
	__type(value, struct flow);
	__uint(map_flags, BPF_F_NO_COMMON_LRU);
} closed SEC(".maps");

/* hash of a client's tuple -> the backend it was last given; a hint, overwritten by others */
#define GIVEN_ENTRIES (1 << 16)
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, GIVEN_ENTRIES);
	__type(key, __u32);
	__type(value, struct given_backend);
} given SEC(".maps");

/* hash of a backend's address, port, protocol -> tick of its last new flow; a filter */
#define FILTER_ENTRIES (1 << 16)
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FILTER_ENTRIES);
	__type(key, __u32);
	__type(value, __u32);
} backend_filter SEC(".maps");

/* hash of a backend's tuple -> a tag of it if it was a flow's last; a hint, as above */
#define OWNED_ENTRIES (1 << 18)
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, OWNED_ENTRIES);
	__type(key, __u32);
	__type(value, __u32);
} owned SEC(".maps");

/* the same if somebody else connected by it last, without a Service */
#define THEIRS_ENTRIES (1 << 16)
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, THEIRS_ENTRIES);
	__type(key, __u32);
	__type(value, __u32);
} theirs SEC(".maps");

/* 0 -> how full flows is */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flows_pressure);
} pressure SEC(".maps");

/* client and service port -> the backend it keeps */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct affinity_key);
	__type(value, struct affinity_value);
} affinity SEC(".maps");

/* service port and range -> may use its restricted frontends */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1 << 16);
	__type(key, struct source_range_key);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} source_ranges SEC(".maps");

/* address -> whose it is */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, union ip_addr);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} addresses SEC(".maps");

/* range -> addresses that Services get, allocated or not */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1024);
	__type(key, struct cidr_key);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} service_cidrs SEC(".maps");

/* range -> policies of the kernel (xfrm) may want packets to it encrypted */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1024);
	__type(key, struct cidr_key);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} secured SEC(".maps");

/* datagram -> the ports only its first fragment has */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct fragment_key);
	__type(value, struct fragment_ports);
} fragments SEC(".maps");

/* socket and frontend -> the backend it got; socket and backend -> the frontend */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 17);
	__type(key, struct socket_key);
	__type(value, struct socket_peer);
} sockets SEC(".maps");

/* connected socket -> its entries in sockets; ends with the socket */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct socket_held);
} held SEC(".maps");

/* hook * VERDICT_MAX + verdict -> packets */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HOOK_COUNT *VERDICT_MAX);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* backend index -> what it has done; same size as backends */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1 << 15);
	__type(key, __u32);
	__type(value, struct backend_counts);
} backend_stats SEC(".maps");

/* 0 -> values that change while programs run */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct runtime_values);
} runtime SEC(".maps");

static __always_inline struct runtime_values *runtime_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&runtime, &zero);
}

/* 0 -> what the agent knows of the kernel's routes */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct route_state);
} routes SEC(".maps");

/* next hop -> when packets were last sent to it */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct neighbour_key);
	__type(value, struct neighbour);
} neighbours SEC(".maps");

/* ifindex -> how packets leave by it */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct device);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} devices SEC(".maps");

/* device, VLAN and MAC -> ifindex of the device of the node that has this MAC */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct station_key);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} stations SEC(".maps");

#endif
