// Package undumpable keeps a program's memory from other processes of its user,
// from the moment that the package is initialised: they can neither trace it nor
// read /proc/PID/mem, and it leaves no core file (PR_SET_DUMPABLE in prctl(2)).
// Each program imports it for that. It imports nothing that would come before it.
//
// Until then there are the first instructions of a program. In these the kernel
// keeps others away by itself where its user cannot read the file (execve(2)): so
// the front ends' files have mode 0711, see privs.Traceable.
package undumpable

import "syscall"

func init() {
	if _, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0); e != 0 {
		syscall.Write(2, []byte("prctl(PR_SET_DUMPABLE) fails: "+e.Error()+"\n"))
		syscall.Exit(1)
	}
}
