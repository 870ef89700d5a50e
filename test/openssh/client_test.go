package openssh

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"syscall"
)

// withoutVariable has the patterns of what clientMain leaves out.
const withoutVariable = "OPENSSH_TESTS_WITHOUT"

// clientMain is the program when it is called ssh: Debian's, but that it does not tell
// (ssh -Q) of some algorithms, so that a script does not ask the server for them.
func clientMain(args []string) int {
	const ssh = "/usr/bin/ssh"
	if len(args) < 2 || args[len(args)-2] != "-Q" {
		fmt.Fprintln(os.Stderr, syscall.Exec(ssh, append([]string{ssh}, args...), os.Environ()))
		return 255
	}
	out, err := exec.Command(ssh, args...).Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 255
	}
	without := strings.Fields(os.Getenv(withoutVariable))
	for line := range strings.Lines(string(out)) {
		if !slices.ContainsFunc(without, func(p string) bool {
			ok, _ := path.Match(p, strings.TrimSpace(line))
			return ok
		}) {
			fmt.Print(line)
		}
	}
	return 0
}
