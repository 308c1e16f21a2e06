package config

// The values of Config.EastWest.
const (
	EastWestSocket = "socket" // sockets dial backends
	EastWestPacket = "packet" // those of pods do not: see programs on pod links
	EastWestOff    = "off"    // no program on sockets at all
)

// sockets are the settings of connections that begin on this node.
func sockets() []option {
	return []option{
		{name: "east-west", def: EastWestSocket, off: true, allowed: "socket, packet, off",
			usage: "how what begins on this node reaches Services: sockets dial backends; only those of the node itself do; none",
			set:   choice(func(c *Config) *string { return &c.EastWest }, EastWestSocket, EastWestPacket, EastWestOff)},
		{name: "cgroup-root", usage: "root of the cgroup v2 hierarchy that all sockets belong to; empty: where it is mounted", allowed: "a directory",
			set: text(func(c *Config) *string { return &c.CgroupRoot })},
	}
}
