// Package rights is what the factotum process and its workers may do, beyond that
// they are root: the Linux capabilities of the table, and the system calls that
// are not on a list. Enter gives the rest up, for good.
//
// A worker inherits what is set here, and PAM modules are other people's programs.
// So there is no landlock here, which they would inherit, too: they make home
// directories, mount file systems, write where nobody knows beforehand.
package rights

import "golang.org/x/sys/unix"

// A Right is a Linux capability that factotum or a worker has.
type Right struct {
	Cap  int
	Name string // as capabilities(7) has it, without CAP_
	For  string // what it serves
	Own  bool   // in factotum's own effective set; all the others are the workers'
}

// Table is all of them. The unit of systemd and factotum(8) have the same, with the
// same reasons.
var Table = []Right{
	{unix.CAP_SYS_ADMIN, "SYS_ADMIN", "to mount and unmount the capability files, to enter a NetworkNamespace, and to hang up a terminal", true},
	{unix.CAP_SETUID, "SETUID", "to read a user's files, and to run a program for keys, as that user", false},
	{unix.CAP_SETGID, "SETGID", "the same, with the groups of that user", false},
	{unix.CAP_CHOWN, "CHOWN", "to give a terminal to the user and back, and pam_mkhomedir's new home directory", false},
	{unix.CAP_FOWNER, "FOWNER", "to change the mode of what is the user's already", false},
	{unix.CAP_DAC_OVERRIDE, "DAC_OVERRIDE", "to open the user's terminal, utmp, wtmp, lastlog and faillock's records", false},
	{unix.CAP_KILL, "KILL", "to end a program for keys that takes too long", false},
	{unix.CAP_SYS_RESOURCE, "SYS_RESOURCE", "to give pam_limits' limits to the user's process", false},
	{unix.CAP_SYS_NICE, "SYS_NICE", "to give pam_limits' priority to the user's process", false},
	{unix.CAP_AUDIT_WRITE, "AUDIT_WRITE", "to write audit records", false},
	{unix.CAP_AUDIT_CONTROL, "AUDIT_CONTROL", "for pam_loginuid, where a login uid is set already", false},
}

// denied are the system calls that neither factotum nor a worker makes: those of
// systemd's sets @clock, @cpu-emulation, @debug, @module, @obsolete, @raw-io,
// @reboot and @swap (systemd-analyze syscall-filter), and those of extra. A name
// that an architecture does not have is left out there.
var denied = []string{
	// @clock
	"adjtimex", "clock_adjtime", "clock_adjtime64", "clock_settime", "clock_settime64", "settimeofday",
	// @cpu-emulation
	"modify_ldt",
	// @debug
	"lookup_dcookie", "perf_event_open", "pidfd_getfd", "ptrace",
	// @module
	"delete_module", "finit_module", "init_module",
	// @obsolete
	"_sysctl", "afs_syscall", "create_module", "get_kernel_syms", "getpmsg", "putpmsg", "query_module", "security", "sysfs", "tuxcall", "uselib", "ustat", "vserver",
	// @raw-io
	"ioperm", "iopl",
	// @reboot
	"kexec_file_load", "kexec_load", "reboot",
	// @swap
	"swapoff", "swapon",
}

// extra are large or old doors into the kernel, and ways into another process, that
// no set of systemd's above has.
var extra = []string{
	"acct", "bpf", "io_uring_enter", "io_uring_register", "io_uring_setup", "kcmp", "open_by_handle_at",
	"pivot_root", "process_vm_readv", "process_vm_writev", "quotactl", "sethostname", "setdomainname", "userfaultfd",
}
