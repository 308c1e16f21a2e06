// Package version knows which build this program is: what a release was given
// by the linker, or else what Go notes about a build by itself.
package version

import (
	"runtime"
	"runtime/debug"
)

// Set for a release by -ldflags "-X …/agent/version.version=v1.2.3"; empty otherwise.
var version, commit string

// Build is what is known of a build.
type Build struct {
	Version  string // "v1.2.3"; "(devel)" outside of releases
	Commit   string // empty: not known; ends in "-dirty" if there were other changes
	Go       string // the release of Go, "go1.26.0"
	Platform string // "linux/amd64"
}

// Get returns the build of this program.
func Get() Build {
	b := Build{Version: version, Commit: commit, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b.orUnknown()
	}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Commit == "" {
		b.Commit = commitOf(info.Settings)
	}
	return b.orUnknown()
}

func (b Build) orUnknown() Build {
	if b.Version == "" {
		b.Version = "unknown"
	}
	return b
}

// commitOf returns what Go noted of the version control system; empty if nothing.
func commitOf(settings []debug.BuildSetting) string {
	var revision, dirty string
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	if revision == "" {
		return ""
	}
	return revision + dirty
}
