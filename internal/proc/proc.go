// Package proc asks the kernel about other processes: what /proc says of a
// thread, and pidfds (pidfd_open(2)) that stay with one process for good.
package proc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Status is what /proc/TID/status says of a thread: see proc_pid_status(5).
type Status struct {
	PID        int    // the process that the thread belongs to (Tgid)
	Parent     int    // of the process
	UID        uint32 // real uid
	EUID       uint32
	Tracer     int // process that traces the thread, or 0
	NoNewPrivs bool
	Permitted  uint64 // capability sets, a bit each
	Effective  uint64
	Bounding   uint64
}

// ReadStatus reads the status of a thread or process.
func ReadStatus(tid int) (Status, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		return Status{}, err
	}
	return parseStatus(string(b))
}

func parseStatus(s string) (Status, error) {
	var st Status
	seen := 0
	for line := range strings.Lines(s) {
		name, v, _ := strings.Cut(line, ":")
		f := strings.Fields(v)
		if len(f) == 0 {
			continue
		}
		var err error
		seen++
		switch name {
		case "Tgid":
			st.PID, err = strconv.Atoi(f[0])
		case "TracerPid":
			st.Tracer, err = strconv.Atoi(f[0])
		case "PPid":
			st.Parent, err = strconv.Atoi(f[0])
		case "Uid":
			if len(f) != 4 {
				return st, errors.New("/proc status: Uid")
			}
			var r, e uint64
			r, err = strconv.ParseUint(f[0], 10, 32)
			if err == nil {
				e, err = strconv.ParseUint(f[1], 10, 32)
			}
			st.UID, st.EUID = uint32(r), uint32(e)
		case "NoNewPrivs":
			st.NoNewPrivs = f[0] != "0"
		case "CapPrm":
			st.Permitted, err = strconv.ParseUint(f[0], 16, 64)
		case "CapEff":
			st.Effective, err = strconv.ParseUint(f[0], 16, 64)
		case "CapBnd":
			st.Bounding, err = strconv.ParseUint(f[0], 16, 64)
		default:
			seen--
		}
		if err != nil {
			return st, fmt.Errorf("/proc status: %s: %w", name, err)
		}
	}
	if seen != 8 {
		return st, errors.New("/proc status: lines are missing")
	}
	return st, nil
}

// Limits are the limits of a process, as /proc/PID/limits has them.
type Limits string

// ReadLimits reads the limits of a process.
func ReadLimits(pid int) (Limits, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/limits")
	return Limits(b), err
}

// Limit is a soft and a hard limit, by the name that the file has for it. ^uint64(0) is
// unlimited.
func (l Limits) Limit(name string) (soft, hard uint64, err error) {
	for line := range strings.Lines(string(l)) {
		v, ok := strings.CutPrefix(line, name+" ")
		f := strings.Fields(v)
		if !ok || len(f) < 2 {
			continue
		}
		limits := [2]uint64{}
		for i, s := range f[:2] {
			if limits[i], err = strconv.ParseUint(s, 10, 64); s == "unlimited" {
				limits[i], err = ^uint64(0), nil
			}
			if err != nil {
				return 0, 0, fmt.Errorf("/proc limits: %s: %w", name, err)
			}
		}
		return limits[0], limits[1], nil
	}
	return 0, 0, fmt.Errorf("/proc limits: no %s", name)
}

// Stat is what /proc/PID/stat says: see proc_pid_stat(5).
type Stat struct {
	Session int
	TTY     uint32 // device number of the controlling terminal, or 0
	Start   uint64 // start time in clock ticks since boot
}

// ReadStat reads the stat file of a process.
func ReadStat(pid int) (Stat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Stat{}, err
	}
	return parseStat(string(b))
}

func parseStat(s string) (Stat, error) {
	var st Stat
	// The name of the program may have anything in it, ")" and " " too.
	i := strings.LastIndexByte(s, ')')
	f := strings.Fields(s[i+1:])
	if i < 0 || len(f) < 20 {
		return st, errors.New("/proc stat: too short")
	}
	var err error
	if st.Session, err = strconv.Atoi(f[3]); err != nil {
		return st, fmt.Errorf("/proc stat: session: %w", err)
	}
	tty, err := strconv.ParseInt(f[4], 10, 32)
	if err != nil {
		return st, fmt.Errorf("/proc stat: tty: %w", err)
	}
	st.TTY = uint32(tty)
	if st.Start, err = strconv.ParseUint(f[19], 10, 64); err != nil {
		return st, fmt.Errorf("/proc stat: start time: %w", err)
	}
	return st, nil
}

// A Handle is a pidfd: it stands for one process, even after its pid has gone
// to another. The caller closes it.
type Handle struct {
	PID int
	f   *os.File
}

// Open opens a handle on the process. The caller checks afterwards, by what
// it knows otherwise, that it is the process that it meant.
func Open(pid int) (*Handle, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return &Handle{pid, os.NewFile(uintptr(fd), "pidfd")}, nil
}

// File is the pidfd, for passing on.
func (h *Handle) File() *os.File { return h.f }

// Alive says whether the process has not ended. A handle that is closed says
// no: poll(2) would leave it out.
func (h *Handle) Alive() bool {
	p := []unix.PollFd{{Fd: int32(h.f.Fd()), Events: unix.POLLIN}}
	if p[0].Fd < 0 {
		return false
	}
	for {
		n, err := unix.Poll(p, 0)
		if err != unix.EINTR {
			return err == nil && n == 0
		}
	}
}

// Close closes the handle.
func (h *Handle) Close() error { return h.f.Close() }
