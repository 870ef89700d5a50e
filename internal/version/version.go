// Package version says what a program of p9auth is and was built from: what -V
// prints.
//
// The version is the file VERSION at the top of the tree, which make hands to the
// linker. All else is what the go command has stamped into the program; "go
// version -m PROGRAM" prints the same, and more, of a program that cannot run.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// The Makefile sets these with -ldflags -X. Where the go command was called
// without, as in a test, they are empty.
var (
	number string // the version
	commit string // as "git describe --always --dirty" has it; empty without git
)

// Library is what the SSH library is called in build information.
const Library = "golang.org/x/crypto"

// Text returns some lines about the running program, the last one ended:
//
//	NAME from p9auth 0.2.0-dev
//	commit 2d58117ca1b2-dirty
//	go1.26.8, linux/amd64
//	golang.org/x/crypto v0.58.0, with the patches of tools/sshpatch
//
// The first is like that of util-linux's programs. The commit is left out where
// the program was built outside of a git repository, "-dirty" where all was
// committed. libraries are the modules to name, as go.mod does; one that the
// program does not have is left out.
func Text(name string, libraries ...string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{GoVersion: runtime.Version()}
	}
	return text(name, number, commit, info, libraries)
}

func text(name, number, commit string, info *debug.BuildInfo, libraries []string) string {
	if number == "" {
		number = "(built without make)"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s from p9auth %s\n", name, number)
	set := map[string]string{}
	for _, s := range info.Settings {
		set[s.Key] = s.Value
	}
	if revision := set["vcs.revision"]; commit == "" && revision != "" {
		commit = revision[:min(12, len(revision))]
		if set["vcs.modified"] == "true" {
			commit += "-dirty"
		}
	}
	if commit != "" {
		fmt.Fprintf(&b, "commit %s\n", commit)
	}
	fmt.Fprintf(&b, "%s, %s/%s", info.GoVersion, runtime.GOOS, runtime.GOARCH)
	if set["-tags"] != "" {
		fmt.Fprintf(&b, ", tags %s", set["-tags"])
	}
	b.WriteString("\n")
	for _, path := range libraries {
		for _, m := range info.Deps {
			if m.Path != path {
				continue
			}
			fmt.Fprintf(&b, "%s %s", m.Path, m.Version)
			if m.Replace != nil {
				b.WriteString(", with the patches of tools/sshpatch")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}
