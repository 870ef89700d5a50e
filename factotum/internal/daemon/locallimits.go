package daemon

import (
	"strconv"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/internal/becomerecord"
	"p9auth/internal/proc"
)

// limitNames are the resources as /proc/PID/limits has them, by RLIMIT_ number.
var limitNames = [becomerecord.NumLimits]string{
	"Max cpu time", "Max file size", "Max data size", "Max stack size", "Max core file size", "Max resident set", "Max processes",
	"Max open files", "Max locked memory", "Max address space", "Max file locks", "Max pending signals", "Max msgqueue size",
	"Max nice priority", "Max realtime priority", "Max realtime timeout",
}

// sanitize adds the limits that su(1) begins with, so that nobody becomes another user
// with limits that hinder (sanitize_prlimits in util-linux). Modules may set others.
func sanitize(b *becomerecord.Bound) {
	unlimited := becomerecord.Limit{Soft: unix.RLIM_INFINITY, Hard: unix.RLIM_INFINITY}
	b.Limits = map[int]becomerecord.Limit{
		unix.RLIMIT_NICE: {}, unix.RLIMIT_RTPRIO: {}, unix.RLIMIT_FSIZE: unlimited, unix.RLIMIT_AS: unlimited,
		unix.RLIMIT_NOFILE: {Soft: 1024, Hard: unix.RLIM_INFINITY}, // FD_SETSIZE
	}
}

// fit adds the limits that modules have set. They are set when the caller's process is
// the user, as it could keep them otherwise; a hard limit that the process has already
// is not raised by that, as become has no right to.
func (l *localProto) fit(b *becomerecord.Bound, o *pamwire.Opened) error {
	for n, limit := range o.Limits {
		b.Limits[n] = becomerecord.Limit(limit)
	}
	limits, err := proc.ReadLimits(l.process.PID)
	if err != nil {
		return violation("%v", errSenderEnded)
	}
	for n, want := range b.Limits {
		_, hard, err := limits.Limit(limitNames[n])
		if err != nil {
			return err
		}
		want.Hard = min(want.Hard, hard)
		want.Soft = min(want.Soft, want.Hard)
		b.Limits[n] = want
	}
	return nil
}

// signals are those that su passes on to the process that it has started.
var signals = map[string]unix.Signal{"TERM": unix.SIGTERM, "KILL": unix.SIGKILL, "CONT": unix.SIGCONT}

// signal sends a signal to a child of the sender that is the user: the sender could
// not, as it is another user, and elsewhere su can, as root.
func (l *localProto) signal(p capproto.Packet) (capproto.Msg, error) {
	sig, ok := signals[p.Get("signal")]
	pid, err := strconv.ParseUint(p.Get("pid"), 10, 31)
	if !ok || err != nil || pid == 0 {
		return capproto.Msg{}, violation("signal=%.10s pid=%.20s", p.Get("signal"), p.Get("pid"))
	}
	h, err := proc.Open(int(pid))
	if err != nil {
		return capproto.NewMsg(capproto.VerbOK), nil // it has ended
	}
	defer h.Close()
	st, err := proc.ReadStatus(h.PID)
	if err != nil || !h.Alive() {
		return capproto.NewMsg(capproto.VerbOK), nil
	}
	if st.Parent != int(l.sender.Pid) || st.UID != l.user.uid {
		return capproto.Msg{}, violation("signal to a process that is no child of the sender, or not the user")
	}
	if err := l.worker.Signal(int(sig), h.File()); err != nil {
		return capproto.Msg{}, l.workerFailed(err)
	}
	e, err := l.await()
	if err != nil {
		return capproto.Msg{}, err
	}
	if _, ok := e.(pamwire.Recorded); !ok {
		return capproto.Msg{}, l.unexpected(e)
	}
	return capproto.NewMsg(capproto.VerbOK), nil
}
