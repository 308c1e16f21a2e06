/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The checksum of SCTP: a CRC of the packet and of nothing else, so that new
 * addresses leave it as it is, and new ports do not.
 */
#ifndef EBB_SCTP_H
#define EBB_SCTP_H

#include "crc32c.h"
#include "parse.h"

#define SCTP_CHECK __builtin_offsetof(struct sctp_hdr, check)

/* What f's rewrite changes in the checksum of p. */
static __always_inline __u32 sctp_change(const struct packet *p, const struct flow *f)
{
	__u32 ports = (__u32)(p->seg.key.dport ^ f->dport) << 16 | (p->seg.key.sport ^ f->sport);

	return ports ? crc32c_change(ports, p->len - (p->l4_off - p->l3_off)) : 0;
}

#endif
