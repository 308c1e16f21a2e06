// Package secured tells programs to which addresses the kernel's IPsec policies may
// want packets encrypted: what goes there is left to the stack, which has the rest of
// the policy, and the keys. It knows no Service and no flow, and does not encrypt.
package secured

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ebb-lb/ebb/agent/noted"
)

const (
	// interval is how often policies are looked at without being told.
	interval = 30 * time.Second
	// retry is when to look again after that failed.
	retry = 5 * time.Second
	// most is for how many ranges there is room; of more, all addresses are taken to be in one.
	most = 1000
)

// Parts are what a Keeper works with.
type Parts struct {
	// Kernel has the policies.
	Kernel interface {
		Watch(ctx context.Context, tell func()) error
		Secured() ([]netip.Prefix, error)
	}
	// Ranges is what programs are told. Nobody else may write it.
	Ranges interface {
		Put(netip.Prefix) error
		Delete(netip.Prefix) error
		All() (map[netip.Prefix]struct{}, error)
	}
	// Changed is called when programs have to look their routes up again.
	Changed func()
	// Settings is the note of settings the Keeper has raised.
	Settings noted.Settings
	// Warn is told what does not work; "" if all does. It reports whether that is news.
	Warn func(problem string) bool
	Log  *slog.Logger
}

// SettingsIn returns the note of settings in a state directory, for [Parts] and for
// giving them back.
func SettingsIn(dir string) noted.Settings {
	return noted.Settings(filepath.Join(dir, "ipsec-settings.json"))
}

// acceptLocal lets the stack take packets with addresses of this node as their source
// from the loopback device, by which nobody else can send them.
var acceptLocal = noted.Setting{Name: "net.ipv4.conf.lo.accept_local", File: "/proc/sys/net/ipv4/conf/lo/accept_local", Least: 1}

// Keeper does it. Use New, then Look, then Run once.
type Keeper struct {
	parts Parts
	any   atomic.Bool
}

// New returns a Keeper that has done nothing yet.
func New(p Parts) *Keeper { return &Keeper{parts: p} }

// Any reports whether programs know any range. It may be called from any goroutine.
func (k *Keeper) Any() bool { return k.any.Load() }

// Run works until ctx ends, and returns nil. What programs know stays.
func (k *Keeper) Run(ctx context.Context) error {
	for {
		err := k.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		k.report(err)
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return nil
		}
	}
}

// follow works until ctx ends or nothing is told any more.
func (k *Keeper) follow(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return k.parts.Kernel.Watch(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	})
	g.Go(func() error {
		rounds := time.NewTicker(interval)
		defer rounds.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			case <-rounds.C:
			}
			k.Look()
		}
	})
	return g.Wait()
}

// Look makes programs know what policies there are. A range is told before it is
// said that there are any, and the other way round for what goes: programs that are between both
// ask once too often. One goroutine at a time may call it.
func (k *Keeper) Look() { k.report(k.look()) }

func (k *Keeper) look() error {
	have, err := k.parts.Ranges.All()
	if err != nil {
		return err
	}
	// Until it is known what the kernel has, what an earlier agent has told holds.
	k.any.Store(len(have) > 0)
	want, err := k.parts.Kernel.Secured()
	if err != nil {
		return err
	}
	want = bounded(want)
	var setting []noted.Setting
	if slices.ContainsFunc(want, func(p netip.Prefix) bool { return p.Addr().Is4() }) {
		setting = append(setting, acceptLocal)
	}
	_, settingErr := k.parts.Settings.Raise(setting)
	changed, err := k.tell(have, want)
	if changed {
		k.parts.Changed()
	}
	if err != nil {
		return err
	}
	if settingErr != nil {
		return fmt.Errorf("packets to %s are lost, which IPsec should encrypt: %w", want[0], settingErr)
	}
	return nil
}

// bounded is ranges, or everything if there are too many.
func bounded(ranges []netip.Prefix) []netip.Prefix {
	if len(ranges) <= most {
		return ranges
	}
	return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
}

// tell brings the map from have to want.
func (k *Keeper) tell(have map[netip.Prefix]struct{}, want []netip.Prefix) (changed bool, err error) {
	k.any.Store(len(have)+len(want) > 0)
	for p := range have {
		if slices.Contains(want, p) {
			continue
		}
		if err := k.parts.Ranges.Delete(p); err != nil {
			return changed, err
		}
		changed = true
		k.parts.Log.Info("no IPsec policy is for packets to these addresses any more", "to", p)
	}
	for _, p := range want {
		if _, ok := have[p]; ok {
			continue
		}
		if err := k.parts.Ranges.Put(p); err != nil {
			return changed, err
		}
		changed = true
		k.parts.Log.Info("packets to these addresses are left to the kernel: an IPsec policy may want them encrypted", "to", p)
	}
	k.any.Store(len(want) > 0)
	return changed, nil
}

// report logs a problem once, and its end.
func (k *Keeper) report(err error) {
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	if k.parts.Warn(problem) && err != nil {
		k.parts.Log.Warn("IPsec policies are not followed as they should be", "err", err)
	}
}
