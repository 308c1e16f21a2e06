package watch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// document is one of the documents of a file.
type document struct {
	place string // "web.yaml: document 2"
	json  []byte // nil: nothing but comments
	err   error
}

// documents splits a file. A document that does not parse has an error that
// names its place and line; the others are still returned.
func documents(f manifestFile) []document {
	data := bytes.TrimPrefix(f.data, []byte("\xef\xbb\xbf"))
	if filepath.Ext(f.path) == ".json" {
		return jsonDocuments(f.path, data)
	}
	var docs []document
	for i, part := range splitYAML(data) {
		doc := document{place: place(f.path, i)}
		text, err := yaml.YAMLToJSONStrict(part.text)
		switch {
		case err != nil:
			doc.err = fmt.Errorf("%s: %w", doc.place, yamlError(err, part.line))
		case string(text) != "null":
			doc.json = text
		}
		docs = append(docs, doc)
	}
	return docs
}

func place(path string, index int) string {
	return fmt.Sprintf("%s: document %d", path, index+1)
}

// yamlPart is the text of one YAML document; its first line is line+1.
type yamlPart struct {
	text []byte
	line int
}

// splitYAML cuts at "---" and "...". Comments before the first document are
// not a document; an empty document between two separators is one.
func splitYAML(data []byte) []yamlPart {
	var parts []yamlPart
	// The parser numbers no error in a first line: put another before it.
	cur := yamlPart{text: []byte("\n"), line: -1}
	explicit := false
	finish := func() {
		if explicit || !isPrologue(cur.text) {
			parts = append(parts, cur)
		}
	}
	line := 0
	for text := range bytes.Lines(data) {
		if begin, end := hasMarker(text, "---"), hasMarker(text, "..."); begin || end {
			finish()
			explicit = begin
			cur = yamlPart{line: line}
			text = append([]byte("   "), text[3:]...)
		}
		cur.text = append(cur.text, text...)
		line++
	}
	finish()
	return parts
}

func hasMarker(line []byte, marker string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(marker))
	return ok && (len(rest) == 0 || bytes.ContainsAny(rest[:1], " \t\r\n"))
}

// isPrologue reports whether text has only comments, directives and blanks.
func isPrologue(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return false
		}
	}
	return true
}

var lineNumber = regexp.MustCompile(`\bline (\d+)`)

// yamlError makes the parser's message one line long and its line numbers
// those of the file. The parser's errors carry nothing but their text.
func yamlError(err error, offset int) error {
	text := lineNumber.ReplaceAllStringFunc(err.Error(), func(m string) string {
		n, convErr := strconv.Atoi(strings.TrimPrefix(m, "line "))
		if convErr != nil {
			return m
		}
		return "line " + strconv.Itoa(n+offset)
	})
	text = strings.TrimPrefix(text, "error converting YAML to JSON: ")
	return errors.New(strings.Join(strings.Fields(text), " "))
}

func jsonDocuments(path string, data []byte) []document {
	var docs []document
	dec := json.NewDecoder(bytes.NewReader(data))
	for i := 0; ; i++ {
		var raw json.RawMessage
		err := dec.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return docs
		}
		doc := document{place: place(path, i), json: raw}
		if err != nil {
			doc.json = nil
			doc.err = fmt.Errorf("%s: line %d: %w", doc.place, jsonErrorLine(data, dec, err), err)
			return append(docs, doc)
		}
		docs = append(docs, doc)
	}
}

func jsonErrorLine(data []byte, dec *json.Decoder, err error) int {
	offset := dec.InputOffset()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		offset = syntax.Offset
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		offset = int64(len(data))
	}
	return 1 + bytes.Count(data[:min(offset, int64(len(data)))], []byte("\n"))
}
