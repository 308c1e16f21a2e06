package agent

import (
	"errors"
	"log/slog"

	"github.com/ebb-lb/ebb/agent/config"
	"github.com/ebb-lb/ebb/agent/sockets"
	"github.com/ebb-lb/ebb/loader"
)

// openSockets finds where programs on sockets go.
func (k *kernel) openSockets(cfg config.Config, log *slog.Logger) (err error) {
	k.sockets = loader.NewSocketAttacher(k.programs, loader.LinksDir(cfg.BPFFS), log)
	if k.netns, err = loader.NetnsCookie(); err != nil {
		return err
	}
	if cfg.EastWest == config.EastWestOff {
		return nil
	}
	if k.cgroup, err = loader.OpenCgroup(cfg.CgroupRoot); err != nil {
		return err
	}
	if !k.cgroup.IsRoot() {
		log.Warn("the cgroup root is not that of the machine: only sockets of processes below it are served",
			"cgroup", k.cgroup.Path, "flag", "--cgroup-root")
	}
	return nil
}

// attachSockets brings programs onto sockets, or takes off what an earlier agent
// left.
func (k *kernel) attachSockets() error {
	if k.cgroup == nil {
		return k.sockets.DetachAll()
	}
	return errors.Join(k.sockets.Sync(k.cgroup), k.sockets.Verify())
}

// reach tells whose sockets are given backends; nil: nobody's.
func (k *kernel) reach(cfg config.Config) *sockets.Reach {
	if k.cgroup == nil {
		return nil
	}
	return &sockets.Reach{
		Host: k.netns, PodsByPacket: cfg.EastWest == config.EastWestPacket,
		Attached: func() bool { return k.sockets.Attached() }, Groups: k.cgroup.Groups,
	}
}

// verify asks the kernel whether everything that was attached is there.
func (k *kernel) verify() error {
	return errors.Join(k.attacher.Verify(), k.sockets.Verify())
}
