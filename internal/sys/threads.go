package sys

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
)

// mostProcessors is how many processors a daemon uses at once. Each one more could need
// more threads at once than are kept.
const mostProcessors = 8

// KeepThreads makes n threads beyond those that run Go code, and keeps them for the life
// of the process. Go ends a program that needs one more thread and cannot have it, when
// there are too many tasks for a cgroup, a user or the machine. A daemon needs one for
// each system call that takes long, and one for each processor; it never needs more than
// were made here while it bounds the former. Go keeps threads that have nothing to do.
//
// The error says where there is no room for so many.
func KeepThreads(n int) error {
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), mostProcessors))
	n += runtime.GOMAXPROCS(0)
	if room, what := room(); room < n {
		return fmt.Errorf("there is room for %d threads more, by %s, and %d are needed: raise it", max(room, 0), what, n)
	}
	MakeThreads(n)
	return nil
}

// MakeThreads makes n threads. Go keeps those that have nothing to do, and makes others
// only where none is.
func MakeThreads(n int) {
	var all, done sync.WaitGroup
	all.Add(n)
	for range n {
		done.Go(func() {
			runtime.LockOSThread() // nobody else runs on this thread until all are there
			defer runtime.UnlockOSThread()
			all.Done()
			all.Wait()
		})
	}
	done.Wait()
}

// room is how many tasks more there may be in this process's cgroup and those around
// it, and which file has the bound. Without a bound it is a large number.
func room() (n int, file string) {
	n = 1 << 30
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return n, ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// ID:CONTROLLERS:PATH, see cgroups(7); version 2 has no controllers here.
		p := strings.SplitN(lines.Text(), ":", 3)
		if len(p) != 3 || p[1] != "" && p[1] != "pids" {
			continue
		}
		top := filepath.Join("/sys/fs/cgroup", p[1])
		for dir := filepath.Join(top, p[2]); len(dir) >= len(top); dir = filepath.Dir(dir) {
			most, err1 := number(dir + "/pids.max")
			have, err2 := number(dir + "/pids.current")
			if err1 == nil && err2 == nil && most-have < n {
				n, file = most-have, dir+"/pids.max"
			}
		}
	}
	return n, file
}

// number reads a file that has a number. "max" is an error.
func number(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}
