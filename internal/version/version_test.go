package version

import (
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestTextSaysWhatAProgramWasBuiltFrom(t *testing.T) {
	platform := runtime.GOOS + "/" + runtime.GOARCH
	full := &debug.BuildInfo{
		GoVersion: "go1.26.8",
		Deps: []*debug.Module{
			{Path: "golang.org/x/crypto", Version: "v0.58.0", Replace: &debug.Module{Path: "./build/made-by-make/crypto"}},
			{Path: "golang.org/x/sys", Version: "v0.49.0"},
			{Path: "golang.org/x/term", Version: "v0.47.0"},
		},
		Settings: []debug.BuildSetting{
			{Key: "-tags", Value: "capdev"},
			{Key: "vcs.revision", Value: "2d58117ca1b2aaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
			{Key: "vcs.modified", Value: "true"},
		},
	}
	for _, c := range []struct {
		number    string
		commit    string
		info      *debug.BuildInfo
		libraries []string
		want      []string
	}{
		{"0.2.0-dev", "1234567890ab", full, []string{Library}, []string{
			"login from p9auth 0.2.0-dev",
			"commit 1234567890ab",
			"go1.26.8, " + platform + ", tags capdev",
			"golang.org/x/crypto v0.58.0, with the patches of tools/sshpatch",
		}},
		{"0.2.0-dev", "", full, []string{Library, "golang.org/x/sys", "example.com/not/in/it"}, []string{
			"login from p9auth 0.2.0-dev",
			"commit 2d58117ca1b2-dirty",
			"go1.26.8, " + platform + ", tags capdev",
			"golang.org/x/crypto v0.58.0, with the patches of tools/sshpatch",
			"golang.org/x/sys v0.49.0",
		}},
		{"", "", &debug.BuildInfo{GoVersion: "go1.26.8"}, []string{Library}, []string{
			"login from p9auth (built without make)",
			"go1.26.8, " + platform,
		}},
	} {
		if got, want := text("login", c.number, c.commit, c.info, c.libraries), strings.Join(c.want, "\n")+"\n"; got != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
	}
}
