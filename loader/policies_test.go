package loader

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

// policy is one of IPsec, to dst.
func policy(dst string, edit func(*netlink.XfrmPolicy)) *netlink.XfrmPolicy {
	_, to, err := net.ParseCIDR(dst)
	if err != nil {
		panic(err)
	}
	end := func(four, six string) net.IP {
		if to.IP.To4() != nil {
			return net.ParseIP(four).To4()
		}
		return net.ParseIP(six)
	}
	p := &netlink.XfrmPolicy{Dst: to, Dir: netlink.XFRM_DIR_OUT, Tmpls: []netlink.XfrmPolicyTmpl{{
		Src: end("192.0.2.1", "2001:db8::1"), Dst: end("192.0.2.2", "2001:db8::2"),
		Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Reqid: 1,
	}}}
	if edit != nil {
		edit(p)
	}
	return p
}

func TestPoliciesThatEncryptOrBlockWhatLeavesSecureItsDestination(t *testing.T) {
	newNetns(t)
	for _, p := range []*netlink.XfrmPolicy{
		policy("10.1.0.0/16", nil),
		policy("fd00::/8", nil), // the rest is empty: it must not be taken for one of IPv4
		policy("fd00:1::/64", func(p *netlink.XfrmPolicy) { p.DstPort, p.Proto = 53, 17 }),
		policy("10.2.0.0/16", func(p *netlink.XfrmPolicy) { p.Tmpls, p.Action = nil, netlink.XFRM_POLICY_BLOCK }),
		policy("10.3.0.0/16", func(p *netlink.XfrmPolicy) { p.Tmpls = nil }), // as it is
		policy("10.4.0.0/16", func(p *netlink.XfrmPolicy) { p.Dir = netlink.XFRM_DIR_IN }),
		policy("10.5.0.0/16", func(p *netlink.XfrmPolicy) { p.Dir = netlink.XFRM_DIR_FWD }),
		policy("10.6.0.0/16", func(p *netlink.XfrmPolicy) { p.Mark = &netlink.XfrmMark{Value: 7, Mask: 0xff} }),
		policy("10.7.0.0/16", func(p *netlink.XfrmPolicy) { p.Mark = &netlink.XfrmMark{Mask: 0xff} }),
		policy("10.8.0.0/16", func(p *netlink.XfrmPolicy) { p.Ifid = 9 }), // of an xfrm interface
		policy("10.1.0.0/16", func(p *netlink.XfrmPolicy) { p.Src = policy("192.0.2.1/32", nil).Dst }),
		policy("0.0.0.0/0", func(p *netlink.XfrmPolicy) { p.Src = policy("192.0.2.9/32", nil).Dst }),
	} {
		must(t, "add "+p.String(), netlink.XfrmPolicyAdd(p))
	}
	got, err := Policies{}.Secured()
	must(t, "list", err)
	var want []netip.Prefix
	for _, s := range []string{"0.0.0.0/0", "10.1.0.0/16", "10.2.0.0/16", "10.7.0.0/16", "fd00::/8", "fd00:1::/64"} {
		want = append(want, netip.MustParsePrefix(s))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestChangesOfPoliciesAreTold(t *testing.T) {
	newNetns(t)
	ctx, cancel := context.WithCancel(t.Context())
	calls, done := startWatch(t, ctx, Policies{}.Watch)
	await(t, "the subscription", calls, done)
	must(t, "add", netlink.XfrmPolicyAdd(policy("10.1.0.0/16", nil)))
	await(t, "a policy", calls, done)
	must(t, "flush", netlink.XfrmPolicyFlush())
	await(t, "no policy", calls, done)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
