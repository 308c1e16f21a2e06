// Package loader puts ebb's programs into the kernel and onto devices, and
// keeps what must outlive the agent pinned: maps and links. It knows kernel
// features, bpf filesystems, netlink and the names of the programs. It
// deliberately knows no Service, no Kubernetes object and no content of any map
// but the list of devices.
//
// Pins are laid out as
//
//	<dir>/<layout version>/maps/<map name>
//	<dir>/<layout version>/links/<hook>-<device name>
//
// where <dir> is a directory on a bpf filesystem, [DefaultDir] unless the
// operator says otherwise. A bpf filesystem refuses names with dots in them, so
// a dot in a device name (eth0.100) is written as a colon, which no device name
// may contain.
//
// Netlink requests and attachments concern the network namespace of the calling
// thread.
package loader
