package connection

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestMain is the process that shuts itself in, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "sandbox" {
		sandboxed(os.Args[2], os.Args[3] == "debug")
		return
	}
	dir, err := os.MkdirTemp("", "sshfront-connection")
	if err != nil {
		panic(err)
	}
	// Like the program, and unlike go test's choice, without cgo: with it a
	// process cannot change all of its threads.
	program = filepath.Join(dir, "connection")
	build := exec.Command("go", "test", "-c", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	status := 1
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %v: %s", build, err, out)
	} else {
		status = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(status)
}

// program is this test binary, built without cgo.
var program string

// patience is how long something may take that takes no time.
const patience = 30 * time.Second

func must[T any](v T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return v
}
