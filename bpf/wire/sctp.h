/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The checksum of SCTP: a CRC of the packet and of nothing else, so that new
 * addresses leave it as it is, and new ports do not.
 */
#ifndef EBB_WIRE_SCTP_H
#define EBB_WIRE_SCTP_H

#include "wire/crc32c.h"
#include "wire/parse.h"

#define SCTP_CHECK __builtin_offsetof(struct sctp_hdr, check)

/* What f's rewrite changes in the checksum of p. */
static __always_inline __u32 sctp_change(const struct packet *p, const struct flow *f)
{
	__u32 ports = (__u32)(p->seg.key.dport ^ f->dport) << 16 | (p->seg.key.sport ^ f->sport);

	return ports ? crc32c_change(ports, p->len - (p->l4_off - p->l3_off)) : 0;
}

/* The checksum of a packet that is nothing but this header, its check being 0. */
static __always_inline __u32 sctp_sum(const struct sctp_hdr *sctp)
{
	const __u32 *words = (const __u32 *)sctp;
	__u32 crc = ~0U;

	_Static_assert(sizeof(*sctp) == 16, "sctp_hdr has holes");
	for (int i = 0; i < 4; i++)
		crc = crc32c_word(crc ^ words[i]);
	return ~crc;
}

#endif
