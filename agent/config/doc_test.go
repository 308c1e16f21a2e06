package config

import (
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write docs/configuration.md")

func TestTheDocumentIsThatOfTheOptions(t *testing.T) {
	const file = "../../docs/configuration.md"
	if *update {
		if err := os.WriteFile(file, []byte(Document()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != Document() {
		t.Errorf("%s is not that of the options (%v): go test ./agent/config -run TestTheDocument -update", file, err)
	}
}
