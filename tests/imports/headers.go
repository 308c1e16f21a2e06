package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// layers are the directories of bpf/ from the bottom up: a header includes
// headers of its own layer and of those before it.
var layers = []string{"abi", "wire", "route", "flow", "skb"}

var include = regexp.MustCompile(`(?m)^#include "([^"]+)"`)

func checkHeaders(root string) ([]string, error) {
	var broken []string
	includes := map[string][]string{}
	for rank, layer := range layers {
		files, err := filepath.Glob(filepath.Join(root, layer, "*.h"))
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("find headers of %s: none (%w)", layer, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			name := layer + "/" + filepath.Base(file)
			for _, m := range include.FindAllStringSubmatch(string(text), -1) {
				includes[name] = append(includes[name], m[1])
				if !reaches(rank, m[1]) {
					broken = append(broken, fmt.Sprintf("bpf/%s includes %s: layers are %s", name, m[1], strings.Join(layers, ", ")))
				}
			}
		}
	}
	for name := range includes {
		if path := cycle(includes, name, name, map[string]bool{}); path != nil {
			broken = append(broken, "headers include each other: "+strings.Join(path, " -> "))
		}
	}
	return broken, nil
}

// reaches reports whether a header of the layer rank may include name.
func reaches(rank int, name string) bool {
	for _, l := range layers[:rank+1] {
		if strings.HasPrefix(name, l+"/") {
			return true
		}
	}
	return false
}

// cycle returns how from leads to target again, nil if it does not.
func cycle(includes map[string][]string, from, target string, seen map[string]bool) []string {
	for _, next := range includes[from] {
		if next == target {
			return []string{from, target}
		}
		if seen[next] {
			continue
		}
		seen[next] = true
		if path := cycle(includes, next, target, seen); path != nil {
			return append([]string{from}, path...)
		}
	}
	return nil
}
