package main

import (
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var unexported = cmp.AllowUnexported(line{}, skip{}, testCase{})

func TestLevelsAreRead(t *testing.T) {
	got, err := parseLevels(strings.NewReader(`
# comment
packet  ./a/... ./b -- -test.run=X -test.short
plain   ./c
demo    ! ebb demo --slow $VM_SLOW
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []line{
		{level: "packet", packages: []string{"./a/...", "./b"}, flags: []string{"-test.run=X", "-test.short"}},
		{level: "plain", packages: []string{"./c"}},
		{level: "demo", command: "ebb demo --slow $VM_SLOW"},
	}
	if diff := cmp.Diff(want, got, unexported); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := parseLevels(strings.NewReader("\nlonely\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a level without anything to run: %v, want an error that names line 2", err)
	}
}

func TestTheFilesBesideThisTestAreReadable(t *testing.T) {
	lines, err := parseFile("levels", parseLevels)
	if err != nil || len(lines) == 0 {
		t.Errorf("levels: %v, %v", lines, err)
	}
	if _, err := parseFile("skips", parseSkips); err != nil {
		t.Error(err)
	}
}

func TestSkipsAreAccountedFor(t *testing.T) {
	expected, err := parseSkips(strings.NewReader("6.1 loader.TestA  tcx links\n6.12 loader.TestB x\n"))
	if err != nil {
		t.Fatal(err)
	}
	tcx := testCase{name: "loader.TestA", outcome: skipped, reason: "a_test.go:1: missing feature: tcx links (Linux 6.6)"}
	sub := testCase{name: "loader.TestA/sub", outcome: skipped, reason: tcx.reason}
	other := testCase{name: "loader.TestA", outcome: skipped, reason: "no time"}
	namesake := testCase{name: "loader.TestAB", outcome: skipped, reason: tcx.reason}
	ran := testCase{name: "loader.TestA", outcome: passed}
	for _, tc := range []struct {
		name       string
		kernel     string
		cases      []testCase
		unexpected []testCase
		missing    []skip
	}{
		{"as expected, with subtests", "6.1", []testCase{tcx, sub}, nil, nil},
		{"for another reason", "6.1", []testCase{other}, []testCase{other}, expected[:1]},
		{"of another test", "6.1", []testCase{tcx, namesake}, []testCase{namesake}, nil},
		{"on another kernel", "6.18", []testCase{tcx}, []testCase{tcx}, nil},
		{"it ran after all", "6.1", []testCase{ran}, nil, expected[:1]},
	} {
		t.Run(tc.name, func(t *testing.T) {
			unexpected, missing := account(tc.kernel, expected, tc.cases)
			if diff := cmp.Diff(tc.unexpected, unexpected, unexported); diff != "" {
				t.Errorf("unexpected (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.missing, missing, unexported); diff != "" {
				t.Errorf("missing (-want +got):\n%s", diff)
			}
		})
	}
}

const events = `
{"Action":"run","Test":"TestA"}
{"Action":"output","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Test":"TestA","Output":"    a_test.go:3: missing feature: flying\n"}
{"Action":"output","Test":"TestA","Output":"--- SKIP: TestA (0.00s)\n"}
{"Action":"skip","Test":"TestA","Elapsed":0}
{"Action":"run","Test":"TestB"}
{"Action":"run","Test":"TestB/sub"}
{"Action":"output","Test":"TestB/sub","Output":"    b_test.go:9: wrong\n"}
{"Action":"fail","Test":"TestB/sub","Elapsed":0.5}
{"Action":"fail","Test":"TestB","Elapsed":1}
{"Action":"run","Test":"TestC"}
{"Action":"pass","Test":"TestC","Elapsed":0.25}
{"Action":"run","Test":"TestD"}
{"Action":"output","Test":"TestD","Output":"panic: boom\n"}
{"Action":"fail"}
`

func TestEventsBecomeCases(t *testing.T) {
	got, err := readEvents(strings.NewReader(events), "loader", "loader")
	if err != nil {
		t.Fatal(err)
	}
	want := []testCase{
		{"loader", "loader.TestA", skipped, 0, "a_test.go:3: missing feature: flying"},
		{"loader", "loader.TestB/sub", failed, 500 * time.Millisecond, "b_test.go:9: wrong"},
		{"loader", "loader.TestB", failed, time.Second, ""},
		{"loader", "loader.TestC", passed, 250 * time.Millisecond, ""},
		{"loader", "loader.TestD", failed, 0, "did not end\npanic: boom"},
	}
	if diff := cmp.Diff(want, got, unexported); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCommandsAreJudgedByTheirExitCode(t *testing.T) {
	for _, tc := range []struct {
		name, exit string // exit: content of the file; empty: none
		want       outcome
		says       string
	}{
		{"success", "0 3", passed, ""},
		{"failure", "1 3", failed, "exit code 1\nboom"},
		{"timeout", "124 600", failed, "did not end in time"},
		{"guest gone", "", failed, "the guest ended before it did"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "demo-0.err", "boom\n")
			if tc.exit != "" {
				write(t, dir, "demo-0.exit", tc.exit+"\n")
			}
			cases, err := collect(dir, job{level: "demo", name: "demo-0", command: "ebb demo"})
			if err != nil || len(cases) != 1 {
				t.Fatalf("%v, %v, want one case", cases, err)
			}
			if cases[0].outcome != tc.want || !strings.Contains(cases[0].reason, tc.says) {
				t.Errorf("%+v, want %s saying %q", cases[0], tc.want, tc.says)
			}
		})
	}
}

func TestATestBinaryThatFailsWithoutAFailedTestIsAFailure(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "p.log", "\x16=== RUN   TestA\n\x16--- PASS: TestA (0.00s)\n\x16PASS\nleak found\n")
	write(t, dir, "p.exit", "2 1\n")
	cases, err := collect(dir, job{level: "packet", name: "p", pkg: "tests/p"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range cases {
		got = append(got, c.name+" "+string(c.outcome))
	}
	if diff := cmp.Diff([]string{"tests/p.TestA passed", "tests/p failed"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestEveryLevelHasToRunUnlessLessIsAskedFor(t *testing.T) {
	for _, partial := range []bool{false, true} {
		r := &result{kernel: "6.1", cases: []testCase{{level: "packet", name: "a.TestA", outcome: passed}}}
		r.judge([]string{"packet", "loader"}, []skip{{"6.1", "loader.TestB", "tcx"}}, partial)
		if want := map[bool]int{false: 2, true: 0}[partial]; len(r.problems) != want {
			t.Errorf("partial %t: problems %q, want %d", partial, r.problems, want)
		}
	}
	empty := &result{kernel: "6.1"}
	empty.judge([]string{"packet"}, nil, true)
	if empty.ok() {
		t.Error("a run of nothing is fine")
	}
}

func TestJUnitHasEveryCaseAndEveryProblem(t *testing.T) {
	r := &result{kernel: "6.1", problems: []string{"no <guest>"}, cases: []testCase{
		{level: "packet", name: "a.TestA", outcome: passed, took: time.Second},
		{level: "packet", name: "a.TestB", outcome: failed, reason: "boom"},
		{level: "loader", name: "b.TestC", outcome: skipped, reason: "missing feature: tcx"},
	}}
	path := filepath.Join(t.TempDir(), "junit.xml")
	if err := writeJUnit(path, junit(r, []string{"packet", "loader"})); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got junitSuites
	if err := xml.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	var counts []string
	for _, s := range got.Suites {
		counts = append(counts, strings.Join([]string{s.Name, string(rune('0' + s.Tests)), string(rune('0' + s.Failures)), string(rune('0' + s.Skipped))}, " "))
	}
	if diff := cmp.Diff([]string{"6.1/packet 2 1 0", "6.1/loader 1 0 1", "6.1/matrix 1 1 0"}, counts); diff != "" {
		t.Errorf("suites (-want +got):\n%s", diff)
	}
	if m := got.Suites[2].Cases[0].Failure.Message; m != "no <guest>" {
		t.Errorf("problem %q was mangled", m)
	}
}

func TestTheTableOfFeaturesReplacesTheOldOne(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "old", `{"kernel":"6.1.0","features":[{"name":"tcx","since":"6.6","fallback":"clsact"},{"name":"TC","since":"4.1","present":true}]}`)
	write(t, dir, "new", `{"kernel":"6.12.1","features":[{"name":"tcx","since":"6.6","present":true,"fallback":"clsact"},{"name":"TC","since":"4.1","present":true}]}`)
	var surveys []survey
	for _, n := range []string{"old", "new"} {
		s, err := readSurvey(filepath.Join(dir, n))
		if err != nil {
			t.Fatal(err)
		}
		surveys = append(surveys, s)
	}
	got, err := replaceTable([]byte("a\n"+tableBegin+"old\n"+tableEnd+"b\n"), featureTable(surveys))
	if err != nil {
		t.Fatal(err)
	}
	want := "a\n" + tableBegin + `| feature | since | 6.1.0 | 6.12.1 | without it |
|---|---|---|---|---|
| tcx | 6.6 | no | yes | clsact |
| TC | 4.1 | yes | yes | ebb does not run |
` + tableEnd + "b\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := replaceTable([]byte("no marks"), ""); err == nil {
		t.Error("a document without marks was accepted")
	}
}

// The guest's script with bash alone: its plan is the seam between Go and shell.
func TestThePlanIsCarriedOutAsWritten(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "accelerator", "emulated\n")
	write(t, dir, "slow", "7")
	jobs := []job{
		{name: "one", dir: dir, command: `echo "$VM_SLOW" ` + shellQuote("it's $x|y")},
		{name: "two", dir: "/", command: "pwd >&2; exit 3"},
	}
	write(t, dir, "plan", string(plan(jobs, time.Minute)))
	script := exec.Command("bash", "-c", `mountpoint() { :; }; mkdir() { :; }; dmesg() { :; }; source ./guest.sh "$0" /nowhere`, dir)
	if out, err := script.CombinedOutput(); err != nil || string(out) != "one\ntwo\n" {
		t.Fatalf("%v, output %q", err, out)
	}
	for name, want := range map[string]string{"one.log": "7 it's $x|y\n", "two.log": "", "two.err": "/\n"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(b) != want {
			t.Errorf("%s: %q, %v, want %q", name, b, err, want)
		}
	}
	code, _, err := readExit(filepath.Join(dir, "two.exit"))
	if err != nil || code != 3 {
		t.Errorf("exit code %d, %v, want 3", code, err)
	}
}
