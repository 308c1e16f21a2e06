package config

import (
	"fmt"
	"strings"
)

const docHead = `# Configuration of the agent

Made from the table of options in agent/config: ` + "`go test ./agent/config -run TestTheDocument -update`" + `.

Every option is a flag of ` + "`ebb agent`" + ` and ` + "`ebb preflight`" + `, a variable of the environment, and a key of the YAML file named by
` + "`--config`" + ` (` + "`EBB_CONFIG`" + `): ` + "`--snat-ports=auto`" + `, ` + "`EBB_SNAT_PORTS=auto`" + `, ` + "`snat-ports: auto`" + `. A flag beats the environment, which beats the
file, which beats the default. Options that are lists may be given several times or with commas; in the file they are lists.
Wrong values and unknown keys of the file keep the agent from starting, with all that is wrong in one message; unknown variables are
warnings. Variables of the forms by which the kubelet tells of Services (` + "`EBB_SERVICE_HOST`, `EBB_PORT=tcp://…`" + `) count as nothing.

In the Helm chart, options are the keys of the value ` + "`config`" + ` ([values](values.md)).

| option | default | allowed | |
|---|---|---|---|
`

// Document returns the reference of all options, as Markdown.
func Document() string {
	var b strings.Builder
	b.WriteString(docHead)
	for _, o := range options() {
		def := "`" + o.def + "`"
		switch {
		case o.name == "node-name":
			def = "host name" // of the machine this runs on
		case o.def == "":
			def = ""
		}
		name := "`--" + o.name + "`"
		if o.list {
			name += " (list)"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, cell(def), cell(o.allowed), cell(o.usage))
	}
	return b.String()
}

// cell escapes what ends a cell of a table.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
