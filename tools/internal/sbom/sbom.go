// Package sbom says what a Go program is made of, as an SPDX 2.3 document. It
// asks the program itself, so that nothing is listed that is not in it.
package sbom

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/ebb-lb/ebb/tools/internal/source"
)

type document struct {
	SPDXVersion       string         `json:"spdxVersion"`
	DataLicense       string         `json:"dataLicense"`
	SPDXID            string         `json:"SPDXID"`
	Name              string         `json:"name"`
	DocumentNamespace string         `json:"documentNamespace"`
	CreationInfo      creation       `json:"creationInfo"`
	Packages          []pkg          `json:"packages"`
	Relationships     []relationship `json:"relationships"`
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type pkg struct {
	SPDXID           string     `json:"SPDXID"`
	Name             string     `json:"name"`
	VersionInfo      string     `json:"versionInfo"`
	DownloadLocation string     `json:"downloadLocation"`
	FilesAnalyzed    bool       `json:"filesAnalyzed"`
	LicenseConcluded string     `json:"licenseConcluded"`
	LicenseDeclared  string     `json:"licenseDeclared"`
	CopyrightText    string     `json:"copyrightText"`
	Checksums        []checksum `json:"checksums,omitempty"`
	ExternalRefs     []ref      `json:"externalRefs,omitempty"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type ref struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

const none = "NOASSERTION"

// Of returns the document about the program in a file, which was built from tree.
func Of(program string, tree source.Tree) ([]byte, error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("SBOM: %w", err)
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("SBOM: %w", err)
	}
	sum := sha256.Sum256(content)
	digest := hex.EncodeToString(sum[:])
	d := document{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT",
		Name:              "ebb " + tree.Version,
		DocumentNamespace: source.URL + "/sbom/" + tree.Version + "/" + digest,
		CreationInfo:      creation{Created: tree.Time.Format(time.RFC3339), Creators: []string{"Tool: " + source.Module + "/tools"}},
		Packages:          []pkg{described(info, tree, digest)},
		Relationships:     []relationship{{"SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-ebb"}},
	}
	for _, p := range parts(info) {
		d.Packages = append(d.Packages, p)
		d.Relationships = append(d.Relationships, relationship{"SPDXRef-ebb", "DEPENDS_ON", p.SPDXID})
	}
	text, err := json.MarshalIndent(d, "", "  ")
	return append(text, '\n'), err
}

// described is the program itself.
func described(info *debug.BuildInfo, tree source.Tree, digest string) pkg {
	return pkg{
		SPDXID: "SPDXRef-ebb", Name: info.Main.Path, VersionInfo: tree.Version,
		DownloadLocation: "git+" + source.URL + "@" + strings.TrimSuffix(tree.Commit, "-dirty"),
		LicenseConcluded: source.License, LicenseDeclared: source.License, CopyrightText: none,
		Checksums:    []checksum{{"SHA256", digest}},
		ExternalRefs: []ref{purl("golang", info.Main.Path, tree.Version)},
	}
}

// parts are the standard library and the modules that are linked in.
func parts(info *debug.BuildInfo) []pkg {
	all := []pkg{part("stdlib", strings.TrimPrefix(info.GoVersion, "go"))}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		all = append(all, part(m.Path, m.Version))
	}
	return all
}

func part(path, version string) pkg {
	return pkg{
		SPDXID: "SPDXRef-" + identifier(path), Name: path, VersionInfo: version,
		DownloadLocation: none, LicenseConcluded: none, LicenseDeclared: none, CopyrightText: none,
		ExternalRefs: []ref{purl("golang", path, version)},
	}
}

func purl(kind, path, version string) ref {
	return ref{"PACKAGE-MANAGER", "purl", "pkg:" + kind + "/" + path + "@" + version}
}

// identifier makes a name of letters, digits, dots and dashes.
func identifier(path string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.':
			return r
		}
		return '-'
	}, path)
}
