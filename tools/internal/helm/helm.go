// Package helm renders, checks and packs ebb's chart. It is Helm as a library:
// nothing has to be installed.
package helm

import (
	"context"
	"errors"
	"fmt"
	stdmaps "maps"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
)

// Namespace is where ebb is installed unless somebody says otherwise.
const Namespace = "kube-system"

// Values are what a chart is given.
type Values = map[string]any

// Render returns the templates of the chart in dir as a release called "ebb", by
// the names of their files; those that are empty are left out. Values that the
// schema refuses are an error. No cluster is asked.
func Render(ctx context.Context, dir string, values Values) (map[string]string, error) {
	c, err := loader.LoadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("load chart: %w", err)
	}
	all, err := util.ToRenderValues(c, values, common.ReleaseOptions{Name: "ebb", Namespace: Namespace, IsInstall: true, Revision: 1}, nil)
	if err != nil {
		return nil, err
	}
	rendered, err := engine.Engine{Strict: true}.RenderWithContext(ctx, c, all)
	if err != nil {
		return nil, fmt.Errorf("render chart: %w", err)
	}
	files := map[string]string{}
	for name, text := range rendered {
		name = path.Base(name)
		if text = strings.TrimSpace(text); text != "" && !strings.HasPrefix(name, "_") {
			files[name] = text + "\n"
		}
	}
	return files, nil
}

// Documents returns rendered manifests as one text, in the order of their names.
func Documents(files map[string]string) string {
	var docs []string
	for _, name := range slices.Sorted(stdmaps.Keys(files)) {
		if path.Ext(name) != ".yaml" {
			continue
		}
		for doc := range strings.SplitSeq(files[name], "\n---\n") {
			if doc = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(doc), "---")); doc != "" {
				docs = append(docs, doc+"\n")
			}
		}
	}
	return strings.Join(docs, "---\n")
}

// Lint reports what Helm finds wrong with the chart in dir.
func Lint(dir string) error {
	var errs []error
	for _, m := range lint.RunAll(dir, Values{}, Namespace).Messages {
		if m.Severity >= support.WarningSev {
			errs = append(errs, m)
		}
	}
	return errors.Join(errs...)
}

// Package writes the chart in dir as a file of this version into the folder out,
// and returns its name.
func Package(dir, appVersion, out string) (string, error) {
	c, err := loader.LoadDir(dir)
	if err != nil {
		return "", fmt.Errorf("load chart: %w", err)
	}
	stamp(c, appVersion)
	file, err := chartutil.Save(c, out)
	if err != nil {
		return "", fmt.Errorf("package chart: %w", err)
	}
	return file, nil
}

func stamp(c *chart.Chart, appVersion string) {
	c.Metadata.AppVersion = appVersion
	c.Metadata.Version = strings.TrimPrefix(appVersion, "v")
}
