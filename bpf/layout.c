//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Maps and types, no program: what the agent creates, what tools open, the source of all Go types.
 */
#include "abi/maps.h"

/* Types that no map holds, kept in BTF for bpf2go. */
const enum verdict *unused_verdict __attribute__((unused));
const enum hook *unused_hook __attribute__((unused));
const enum route_flag *unused_route_flag __attribute__((unused));
const enum flow_timeout *unused_flow_timeout __attribute__((unused));
const enum flow_flag *unused_flow_flag __attribute__((unused));
const enum backend_state *unused_backend_state __attribute__((unused));
const enum backend_flag *unused_backend_flag __attribute__((unused));
const enum frontend_flag *unused_frontend_flag __attribute__((unused));
const enum address_flag *unused_address_flag __attribute__((unused));
const enum socket_way *unused_socket_way __attribute__((unused));
const enum device_flag *unused_device_flag __attribute__((unused));
const enum route_state_flag *unused_route_state_flag __attribute__((unused));

char LICENSE[] SEC("license") = "Dual BSD/GPL";
