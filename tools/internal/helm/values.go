package helm

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

const valuesHead = `# Values of the chart

Made from the comments of deploy/helm/ebb/values.yaml by "make manifests". Other values are refused
by the chart's schema.

| value | default | |
|---|---|---|
`

// ValuesDoc returns the documentation of the values of the chart in dir. A value
// without a comment is an error.
func ValuesDoc(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, "values.yaml"))
	if err != nil {
		return "", err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return "", fmt.Errorf("values.yaml: %w", err)
	}
	rows, err := describe("", doc.Content[0])
	return valuesHead + strings.Join(rows, ""), err
}

// describe returns a row for each value of a mapping that has a comment, and the
// rows of the mappings that have none.
func describe(prefix string, mapping *yaml.Node) ([]string, error) {
	var rows []string
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		name := prefix + key.Value
		_, about, documented := strings.Cut(key.HeadComment, "# -- ")
		switch {
		case documented:
			text, err := inline(value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			rows = append(rows, fmt.Sprintf("| `%s` | `%s` | %s |\n", name, text, strings.ReplaceAll(about, "\n# ", " ")))
		case value.Kind == yaml.MappingNode:
			inner, err := describe(name+".", value)
			if err != nil {
				return nil, err
			}
			rows = append(rows, inner...)
		default:
			return nil, fmt.Errorf("values.yaml: line %d: %s has no comment", key.Line, name)
		}
	}
	return rows, nil
}

func inline(value *yaml.Node) (string, error) {
	var v any
	if err := value.Decode(&v); err != nil {
		return "", err
	}
	text, err := json.Marshal(v)
	return string(text), err
}
