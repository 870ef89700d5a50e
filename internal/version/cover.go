//go:build cover

package version

import (
	"os"
	"path/filepath"
)

// Programs that scripts/cover has built write what they ran to build/cover of
// the tree that they are in. The variable for that would not reach them: factotum
// and sshfront start processes without an environment.
func init() {
	exe, err := os.Executable()
	if err != nil {
		return
	}
	dir := filepath.Join(filepath.Dir(exe), "../build/cover/programs")
	if _, err := os.Stat(dir); err == nil {
		os.Setenv("GOCOVERDIR", dir)
	}
}
