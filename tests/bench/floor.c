//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The harness of the benchmarks, and the least that work of ebb's kind can
 * cost. A test run hands a program its own output from the run before; so
 * wrap_xdp and wrap_tc first put the header back, then give it the next of
 * many flows, then tail-call what is measured. An skb keeps its marks as well.
 */
#include "wire/nat.h"
#include "flow/decide.h"

#define HEAD 96

/* What the next packet looks like. */
struct wrap {
	__u32 flows;    /* how many different ones */
	__u32 addr_off; /* where their two words of address end and ... */
	__u32 port_off; /* ... port are */
	__u32 next;
	__u8 head[HEAD];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wrap);
} wrap SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} target_xdp SEC(".maps"), target_tc SEC(".maps");

/* A key of IPv4 only, and the least an entry needs. */
struct key4 {
	__be32 src, dst;
	__be16 sport, dport;
	__u32 proto;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 15);
	__type(key, struct key4);
	__type(value, struct flow);
} ideal4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 15);
	__type(key, struct flow_key);
	__type(value, struct flow);
} ideal16 SEC(".maps");

/* A new flow's one entry, in steady eviction. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 14);
	__type(key, struct flow_key);
	__type(value, struct half_flow);
} ideal_new SEC(".maps");

static __always_inline bool next_packet(void *data, void *data_end)
{
	__u32 zero = 0, i;
	struct wrap *w = bpf_map_lookup_elem(&wrap, &zero);
	__be16 *addr, *port;

	if (!w || data + HEAD > data_end)
		return false;
	__builtin_memcpy(data, w->head, HEAD);
	i = w->next++;
	if (w->next >= w->flows)
		w->next = 0;
	addr = data + (w->addr_off & 63);
	port = data + (w->port_off & 63);
	if ((void *)(addr + 1) > data_end || (void *)(port + 1) > data_end)
		return false;
	*addr = bpf_htons(i >> 14);
	*port = bpf_htons(10000 + (i & 0x3fff));
	return true;
}

SEC("xdp.frags")
int wrap_xdp(struct xdp_md *ctx)
{
	if (next_packet((void *)(long)ctx->data, (void *)(long)ctx->data_end))
		bpf_tail_call_static(ctx, &target_xdp, 0);
	return XDP_ABORTED;
}

SEC("tc")
int wrap_tc(struct __sk_buff *skb)
{
	skb->tc_index = 0; /* what the run before left: TC_SEEN, TC_SENT */
	if (next_packet((void *)(long)skb->data, (void *)(long)skb->data_end))
		bpf_tail_call_static(skb, &target_tc, 0);
	return 2;
}

SEC("xdp.frags")
int floor_pass(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

SEC("tc")
int floor_pass_tc(struct __sk_buff *skb)
{
	(void)skb;
	return 0;
}

SEC("xdp.frags")
int floor_parse(struct xdp_md *ctx)
{
	struct packet p;

	return parse_packet((void *)(long)ctx->data, (void *)(long)ctx->data_end, 0, &p) ? XDP_DROP
											 : XDP_PASS;
}

/* What a packet must cost that is not for a service: two misses. */
SEC("xdp.frags")
int floor_two_misses(struct xdp_md *ctx)
{
	struct packet p;

	if (parse_packet((void *)(long)ctx->data, (void *)(long)ctx->data_end, 0, &p))
		return XDP_DROP;
	if (bpf_map_lookup_elem(&ideal16, &p.seg.key) || frontend_lookup(&p.seg.key))
		return XDP_DROP;
	return XDP_PASS;
}

static __always_inline bool fix_l4(struct packet *p, const struct flow *f)
{
	struct tcp_hdr *tcp = p->l4;

	if ((void *)(tcp + 1) > p->end)
		return false;
	tcp->check = csum_apply(tcp->check, f->csum_addr + f->csum_port);
	return true;
}

static __always_inline int ideal_send(struct packet *p, const struct flow *f)
{
	__u32 *eth = p->l2;

	if (!nat_headers(p, f, true) || !fix_l4(p, f))
		return XDP_DROP;
	eth[0] = f->macs[0];
	eth[1] = f->macs[1];
	eth[2] = f->macs[2];
	return XDP_TX;
}

/* Ideal NAT: parse, one hit, rewrite; an IPv4 key of 16 bytes. */
SEC("xdp.frags")
int floor_ideal4(struct xdp_md *ctx)
{
	struct packet p;
	struct flow *f;
	struct key4 k = {};

	if (parse_packet((void *)(long)ctx->data, (void *)(long)ctx->data_end, 0, &p) || !p.seg.v4)
		return XDP_DROP;
	k.src = p.seg.key.src.w[3];
	k.dst = p.seg.key.dst.w[3];
	k.sport = p.seg.key.sport;
	k.dport = p.seg.key.dport;
	k.proto = p.seg.key.proto;
	f = bpf_map_lookup_elem(&ideal4, &k);
	return f ? ideal_send(&p, f) : XDP_DROP;
}

/* The same with ebb's key of 40 bytes for both families. */
SEC("xdp.frags")
int floor_ideal16(struct xdp_md *ctx)
{
	struct packet p;
	struct flow *f;

	if (parse_packet((void *)(long)ctx->data, (void *)(long)ctx->data_end, 0, &p))
		return XDP_DROP;
	f = bpf_map_lookup_elem(&ideal16, &p.seg.key);
	return f ? ideal_send(&p, f) : XDP_DROP;
}

/* Its new-flow twin: a miss, the one entry a SYN must write, rewrite. */
SEC("xdp.frags")
int floor_ideal_new(struct xdp_md *ctx)
{
	struct half_flow h = {};
	struct packet p;

	if (parse_packet((void *)(long)ctx->data, (void *)(long)ctx->data_end, 0, &p))
		return XDP_DROP;
	if (bpf_map_lookup_elem(&ideal_new, &p.seg.key))
		return XDP_DROP;
	h.flow.src = p.seg.key.dst;
	h.flow.dst = p.seg.key.src;
	h.flow.sport = p.seg.key.dport;
	h.flow.dport = p.seg.key.sport;
	if (bpf_map_update_elem(&ideal_new, &p.seg.key, &h, BPF_NOEXIST))
		return XDP_DROP;
	return ideal_send(&p, &h.flow);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
