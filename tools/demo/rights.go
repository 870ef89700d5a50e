package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"p9auth/internal/proc"
)

// mayHaveRights are the programs that may. sleep is the testbed's: it keeps
// the mount namespace.
var mayHaveRights = map[string]string{
	"factotum":     "",
	"factotum-pam": "",
	"sleep":        "the testbed's own, keeps its mounts",
}

// showRights prints every process in the testbed with its uid and its
// capabilities. It fails if one has rights that must not have any.
func (b *bed) showRights(title string, t *terminal) error {
	fmt.Print("\n\n")
	say("%s", title)
	fmt.Printf("%8s  %-9s %-18s %s\n", "PID", "USER", "CAPABILITIES", "PROGRAM")
	var wrong error
	for _, pid := range b.processes() {
		st, err := proc.ReadStatus(pid)
		if err != nil {
			continue // it has ended
		}
		caps := "none"
		if st.Permitted != 0 {
			caps = fmt.Sprintf("%016x", st.Permitted)
		}
		name := program(pid)
		note, allowed := mayHaveRights[name]
		if pid == t.pid() {
			note = "on " + t.name
		}
		if note != "" {
			note = " (" + note + ")"
		}
		fmt.Printf("%8d  %-9s %-18s %s%s\n", pid, b.userName(st.EUID), caps, name, note)
		if !allowed && (st.UID == 0 || st.EUID == 0 || st.Permitted != 0) {
			wrong = errors.Join(wrong, fmt.Errorf("process %d, %s, has rights", pid, name))
		}
	}
	fmt.Println()
	return wrong
}

// processes are the processes whose mount namespace is the testbed's.
func (b *bed) processes() []int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		if ns, _ := os.Readlink(d + "/ns/mnt"); ns == b.ns {
			pid, _ := strconv.Atoi(filepath.Base(d))
			pids = append(pids, pid)
		}
	}
	sort.Ints(pids)
	return pids
}

// program is the name that the process was started by.
func program(pid int) string {
	cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	arg0, _, _ := bytes.Cut(cmd, []byte{0})
	return filepath.Base(string(arg0))
}

// userName is the name of a uid in the testbed's passwd file, which the demo
// itself does not have.
func (b *bed) userName(uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	passwd, _ := os.ReadFile("/proc/" + b.pid() + "/root/etc/passwd")
	for line := range strings.Lines(string(passwd)) {
		if f := strings.Split(line, ":"); len(f) > 2 && f[2] == number {
			return f[0]
		}
	}
	return number
}
