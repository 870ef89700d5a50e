// Attacks runs "go test", prints what go test would print, and counts the attacks of
// test/attack/README.md in the results:
//
//	$ go run ./tools/attacks go test -count=1 ./...
//	...
//	attacks: 120 tried, 120 failed as they must
//
// It fails where go test fails, and where a test of the list was not there to run, unless
// the arguments select tests (-run, -skip, -short, -tags) or packages other than ./... .
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"p9auth/test/attack"
)

const module = "p9auth/"

// An event is what go test -json prints a line of (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of output of the compiler
	Test       string
	Output     string
}

// A report gathers the results.
type report struct {
	out     io.Writer
	verbose bool
	results map[string]string            // by "FOLDER TestName": pass, fail or skip
	said    map[string]map[string]string // what tests have printed, by package and test
	order   map[string][]string          // the tests of a package in their order
}

// take takes an event. Without -v, go test prints the output of tests that fail, and
// a line for each package.
func (r *report) take(e event) {
	folder := strings.TrimPrefix(e.Package, module)
	switch e.Action {
	case "build-output":
		io.WriteString(r.out, e.Output)
	case "output":
		if r.verbose {
			io.WriteString(r.out, e.Output)
			return
		}
		if e.Test == "" {
			if e.Output != "PASS\n" && !strings.HasPrefix(e.Output, "-test.shuffle ") {
				r.said[e.Package][""] += e.Output
			}
			return
		}
		if !strings.HasPrefix(e.Output, "=== ") {
			r.said[e.Package][e.Test] += e.Output
		}
	case "start":
		r.said[e.Package] = map[string]string{}
	case "run":
		r.order[e.Package] = append(r.order[e.Package], e.Test)
	case "pass", "fail", "skip":
		if e.Test != "" {
			r.results[folder+" "+e.Test] = e.Action
			return
		}
		if e.Action == "fail" {
			for _, test := range r.order[e.Package] {
				if a := r.results[folder+" "+test]; a == "fail" || a == "" {
					io.WriteString(r.out, r.said[e.Package][test])
				}
			}
		}
		io.WriteString(r.out, r.said[e.Package][""])
		delete(r.said, e.Package)
	}
}

// count prints the number of attacks. It returns false if one has succeeded, or all
// should have been tried and one has no test that ran.
func (r *report) count(attacks []attack.Attack, all bool) bool {
	tried, failed := 0, 0
	good := true
	for _, a := range attacks {
		var was []string
		for _, test := range a.Tests {
			was = append(was, r.results[test])
		}
		switch {
		case slices.Contains(was, "fail"):
			tried++
			good = false
			fmt.Fprintf(r.out, "attacks: SUCCEEDED, or its test failed: %s (%s)\n", a.Text, strings.Join(a.Tests, ", "))
		case slices.Contains(was, ""):
			if all {
				good = false
				fmt.Fprintf(r.out, "attacks: no such test has run: %s (%s)\n", a.Text, strings.Join(a.Tests, ", "))
			}
		case slices.Contains(was, "skip"):
			fmt.Fprintf(r.out, "attacks: skipped: %s\n", a.Text)
		default:
			tried++
			failed++
		}
	}
	fmt.Fprintf(r.out, "attacks: %d tried, %d failed as they must\n", tried, failed)
	return good
}

// selects says whether go test's arguments leave tests out.
func selects(args []string) bool {
	for i, a := range args {
		if a == "-tags" && i+1 < len(args) && args[i+1] != "" { // another backend
			return true
		}
		name, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if strings.HasPrefix(a, "-") && slices.Contains([]string{"run", "skip", "short"}, name) {
			return true
		}
	}
	return !slices.Contains(args, "./...")
}

// run runs go test, which args call. It returns false where go test fails, or count does.
func run(args []string, attacks []attack.Attack, out io.Writer) (bool, error) {
	r := &report{
		out: out, verbose: slices.Contains(args, "-v"),
		results: map[string]string{}, said: map[string]map[string]string{}, order: map[string][]string{},
	}
	cmd := exec.Command(args[0], append([]string{args[1], "-json"}, args[2:]...)...)
	cmd.Stderr = os.Stderr
	p, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	in := bufio.NewReader(p)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false, err
		}
		var e event
		if json.Unmarshal(line, &e) != nil { // go itself has something to say
			out.Write(line)
			continue
		}
		r.take(e)
	}
	tested := cmd.Wait()
	return r.count(attacks, !selects(args)) && tested == nil, nil
}

func main() {
	if len(os.Args) < 3 || os.Args[2] != "test" {
		fmt.Fprintln(os.Stderr, "usage: attacks go test [flags] [packages]")
		os.Exit(2)
	}
	attacks, err := attack.List()
	good := false
	if err == nil {
		good, err = run(os.Args[1:], attacks, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "attacks:", err)
	}
	if !good {
		os.Exit(1)
	}
}
