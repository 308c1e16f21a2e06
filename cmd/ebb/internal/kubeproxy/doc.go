// Package kubeproxy knows kube-proxy's configuration, KubeProxyConfiguration v1alpha1 of
// Kubernetes 1.36, and what of it becomes a value of ebb's chart. All of that is in one
// table. It reads and writes text and asks nobody.
package kubeproxy

// Outcomes of a key that a configuration has.
const (
	// Default: it has the value that it has by default, or none.
	Default = "default"
	// Mapped: values of the chart say the same.
	Mapped = "mapped"
	// NotNeeded: ebb has no equivalent and does not need one.
	NotNeeded = "not needed"
	// Differs: ebb has no equivalent, and somebody may notice.
	Differs = "differs"
)

// Entry is what becomes of one key of a configuration.
type Entry struct {
	Key     string   `json:"key"`
	Value   string   `json:"value"`
	Outcome string   `json:"outcome"`
	Values  []string `json:"values,omitempty"` // of the chart, as "config.cluster-cidr=10.244.0.0/16"
	Note    string   `json:"note,omitempty"`
}

// Setting is a value of the chart.
type Setting struct {
	Section, Name string // Name in Section, as "cluster-cidr" in "config"
	Value         any    // a string, a plain json.RawMessage, or strings
	From          string // the key it is made of, or why it is there
}

// Result is a configuration, converted.
type Result struct {
	Mode     string    `json:"mode"` // of kube-proxy
	Entries  []Entry   `json:"keys"`
	Settings []Setting `json:"-"`
}
