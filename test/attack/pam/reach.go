package pam

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reaches tries each way into the processes whose pids it gets: it must have none.
func reaches(args []string) {
	runtime.LockOSThread()
	// They are ways: most lead into a process of one's own.
	child := exec.Command("/bin/sleep", "100")
	must(child.Start())
	defer child.Process.Kill()
	open := 0
	for _, try := range ways(child.Process.Pid) {
		if try() == nil {
			open++
		}
	}
	if open < 15 { // some 20, by their order: who is being traced is shut to others
		panic(fmt.Sprintf("%d ways into a process of its own", open))
	}
	for _, arg := range args {
		pid, err := strconv.Atoi(arg)
		must(err)
		for way, try := range ways(pid) {
			if try() == nil {
				panic(fmt.Sprintf("process %d: %s", pid, way))
			}
		}
	}
}

// ways are the system calls and files by which one process reads, changes or disturbs
// another.
func ways(pid int) map[string]func() error {
	all := map[string]func() error{
		"ptrace": func() error { return unix.PtraceAttach(pid) },
		"seize":  func() error { return unix.PtraceSeize(pid) },
		"read its memory": func() error {
			b := make([]byte, 8)
			_, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &b[0], Len: 8}}, []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&b[0])), Len: 8}}, 0)
			return err
		},
		"take its descriptor": func() error {
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			_, err = unix.PidfdGetfd(fd, 0, 0)
			return err
		},
		"enter its namespaces": func() error {
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Setns(fd, unix.CLONE_NEWNS)
		},
		"compare its files": func() error {
			_, _, e := unix.RawSyscall6(unix.SYS_KCMP, uintptr(pid), uintptr(os.Getpid()), 0, 0, 0, 0)
			if e != 0 {
				return e
			}
			return nil
		},
	}
	for _, name := range []string{"mem", "environ", "maps", "auxv", "io", "syscall", "stack", "fd", "fdinfo", "map_files", "root", "cwd", "exe", "pagemap", "personality", "ns/mnt", "timers"} {
		all["open "+name] = func() error {
			path := fmt.Sprintf("/proc/%d/%s", pid, name)
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			if st, err := f.Stat(); err == nil && st.IsDir() && name != "root" && name != "cwd" {
				_, err := f.Readdirnames(1)
				return err
			}
			_, err = f.Read(make([]byte, 1)) // some are checked when they are read
			return err
		}
	}
	for _, name := range []string{"oom_score_adj", "coredump_filter", "clear_refs", "mem"} {
		all["write "+name] = func() error {
			f, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", pid, name), os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.Write([]byte("1"))
			return err
		}
	}
	all["signal"] = func() error { return unix.Kill(pid, 0) }
	all["limit"] = func() error {
		return unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
	}
	all["slow down"] = func() error { return unix.Setpriority(unix.PRIO_PROCESS, pid, 19) }
	all["move to another processor"] = func() error {
		var set unix.CPUSet
		set.Set(0)
		return unix.SchedSetaffinity(pid, &set)
	}
	return all
}
