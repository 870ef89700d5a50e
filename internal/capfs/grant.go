package capfs

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"p9auth/internal/proc"
)

// A file is a one-time executable.
type file struct {
	node     uint64
	name     string
	bytes    []byte
	caps     uint64
	from     uint32 // the uid that redeemed
	owner    *proc.Handle
	start    uint64 // when the owner started
	executed bool   // the kernel has opened it to execute; it can be looked up no more
	late     bool   // the time to be executed in is over
	timer    *time.Timer
}

// GetXAttr tells the kernel which capabilities a one-time executable starts
// with. Only its owner is told.
func (fs *FS) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	f := fs.file(h.NodeId)
	if f == nil || attr != "security.capability" || fs.owns(h, f) != "" {
		return 0, fuse.ENOATTR
	}
	v := f.capability()
	if len(dest) == 0 {
		return uint32(len(v)), fuse.OK
	}
	if len(dest) < len(v) {
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}

// capability is the attribute security.capability of capabilities(7), version 2:
// all in the permitted set and effective.
func (f *file) capability() []byte {
	const revision2, effective = 0x02000000, 1
	var v []byte
	v = binary.LittleEndian.AppendUint32(v, revision2|effective)
	v = binary.LittleEndian.AppendUint32(v, uint32(f.caps))
	v = binary.LittleEndian.AppendUint32(v, 0)
	v = binary.LittleEndian.AppendUint32(v, uint32(f.caps>>32))
	return binary.LittleEndian.AppendUint32(v, 0)
}

// openGrant lets the owner execute the file, once, and do nothing else with it.
func (fs *FS) openGrant(in *fuse.OpenIn) fuse.Status {
	f := fs.file(in.NodeId)
	if f == nil || in.Flags&fuse.FMODE_EXEC == 0 || fs.owns(&in.InHeader, f) != "" {
		return fuse.EACCES
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.executed {
		return fuse.EACCES
	}
	f.executed = true
	delete(fs.names, f.name)
	return fuse.OK
}

// caller resolves the thread of a request to its process. The thread waits in
// its system call for our answer, so it is there unless it was killed; the
// start time, read on both sides of opening the handle, shows whether it was
// and its number went to another.
func caller(tid int) (start uint64, h *proc.Handle, st proc.Status, err error) {
	if tid == 0 {
		return 0, nil, st, fmt.Errorf("it is in another pid namespace")
	}
	if st, err = proc.ReadStatus(tid); err != nil {
		return 0, nil, st, err
	}
	before, err := proc.ReadStat(st.PID)
	if err != nil {
		return 0, nil, st, err
	}
	if h, err = proc.Open(st.PID); err != nil {
		return 0, nil, st, err
	}
	after, err := proc.ReadStat(st.PID)
	if err == nil && (after.Start != before.Start || !h.Alive()) {
		err = fmt.Errorf("process %d has ended", st.PID)
	}
	if err != nil {
		h.Close()
		return 0, nil, st, err
	}
	return before.Start, h, st, nil
}

// owns says why a request does not come from the process that redeemed the
// grant, or "". The process must still be the user who redeemed: it may have
// become another since, by another grant or by a program that may.
func (fs *FS) owns(h *fuse.InHeader, f *file) (why string) {
	const another = "the executable is another process's"
	st, err := proc.ReadStatus(int(h.Pid))
	if err != nil || st.PID != f.owner.PID {
		return another
	}
	if s, err := proc.ReadStat(st.PID); err != nil || s.Start != f.start || !f.owner.Alive() {
		return another
	}
	if h.Uid != f.from || st.UID != f.from || st.EUID != f.from {
		return "the process is not the user any more who redeemed"
	}
	return ""
}

func (fs *FS) file(node uint64) *file {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.nodes[node]
}

// expire ends a grant that was not executed in time. One that was is forgotten
// some time later, when become has long ended, if the kernel has not done so:
// who holds a descriptor of each must not use up ours.
func (fs *FS) expire(f *file) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	switch {
	case fs.nodes[f.node] == nil:
	case !f.executed:
		fs.opt.Log.Warn("grant expired: redeemed, but not executed in time", "pid", f.owner.PID)
		fs.drop(f)
	case !f.late:
		f.late = true
		f.timer.Reset(10 * fs.opt.Exec)
	default:
		fs.drop(f)
	}
}

// drop removes a grant. The caller holds fs.mu.
func (fs *FS) drop(f *file) {
	delete(fs.names, f.name)
	delete(fs.nodes, f.node)
	f.timer.Stop()
	f.owner.Close()
}
