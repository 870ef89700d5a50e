// Package capfs serves the capability files by FUSE, in the factotum process:
//
//	caphash  0200  hashes go in: one write of 32 bytes allows a capability,
//	               of "-" and 32 bytes revokes it
//	capuse   0666  capabilities go in, names of one-time executables come out
//
// It trusts what the kernel puts into a request's header (the caller's uid and
// thread id) and what /proc says of that thread, nothing that a caller writes.
// It needs CAP_SYS_ADMIN to mount, and CAP_SETUID and CAP_SETGID in effect at
// the process that opens caphash, which is factotum itself.
//
// A capability written to capuse makes a grant, which is bound to the process
// that wrote it. The answer is the name of an executable file which only that
// process can look up, open and execute, once, within a few seconds. The file
// is the become program and a record (internal/becomerecord), and the kernel is told
// that it has the file capabilities cap_setuid and cap_setgid: see
// capabilities(7). That works only on a mount without nosuid, for a process
// which is not traced, has not set no_new_privs, and has both in its bounding
// set.
package capfs

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/becomerecord"
	"p9auth/internal/loglimit"
	"p9auth/internal/proc"
)

// Options says how to serve. The zero value of a number means its default.
type Options struct {
	Become   []byte        // the become program's bytes
	MaxCaps  int           // capabilities that may be outstanding; 1024
	Lifetime time.Duration // of a capability; two minutes, and never more
	Exec     time.Duration // from redemption to exec; ten seconds
	Log      *slog.Logger

	now func() time.Time // for tests of the table's clock
}

const (
	nodeRoot = 1 + iota // fuse.FUSE_ROOT_ID
	nodeHash
	nodeUse
	nodeGrants // the first grant's; each has a number of its own
)

const maxHandles = 256 // open capuse files a uid may have

// requiredCaps are what become cannot do without; loginCap lets it change a
// login uid that was set before.
const (
	requiredCaps = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	loginCap     = 1 << unix.CAP_AUDIT_CONTROL
)

// FS is the file system. Its methods other than those in mount.go answer
// requests of the kernel.
type FS struct {
	fuse.RawFileSystem // what is not answered below is ENOSYS
	opt                Options
	table              table
	server             *fuse.Server
	quiet              loglimit.Limiter

	mu       sync.Mutex
	hashOpen bool              // somebody has caphash open
	nodes    map[uint64]*file  // grants by node
	names    map[string]*file  // grants that may be looked up
	handles  map[uint64]*reply // open capuse files
	perUID   map[uint32]int    // how many of them
	next     uint64            // next node or handle number
}

// A file is a one-time executable.
type file struct {
	node   uint64
	name   string
	record []byte
	caps   uint64
	owner  *proc.Handle
	start  uint64 // when the owner started
	state  int
	late   bool // the time to be executed in is over
	timer  *time.Timer
}

const (
	fresh    = iota // may be looked up and executed
	executed        // the kernel has opened it to execute
	read            // become has opened it to read its record
)

// A reply is an open capuse file and what its owner has still to read.
type reply struct {
	uid uint32
	out []byte
}

func newFS(opt Options) *FS {
	if opt.MaxCaps == 0 {
		opt.MaxCaps = 1024
	}
	if opt.Lifetime == 0 || opt.Lifetime > 2*time.Minute {
		opt.Lifetime = 2 * time.Minute
	}
	if opt.Exec == 0 {
		opt.Exec = 10 * time.Second
	}
	if opt.now == nil {
		opt.now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	return &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		opt:           opt,
		table:         table{max: opt.MaxCaps, lifetime: opt.Lifetime},
		nodes:         map[uint64]*file{},
		names:         map[string]*file{},
		handles:       map[uint64]*reply{},
		perUID:        map[uint32]int{},
		next:          nodeGrants,
	}
}

// String is the file system's name in go-fuse's messages.
func (fs *FS) String() string { return "capfs" }

// Lookup finds a file by name: a one-time executable only for its owner.
// Nothing is ever cached.
func (fs *FS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if h.NodeId != nodeRoot {
		return fuse.ENOENT
	}
	switch name {
	case "caphash":
		out.NodeId = nodeHash
	case "capuse":
		out.NodeId = nodeUse
	default:
		fs.mu.Lock()
		f := fs.names[name]
		fs.mu.Unlock()
		if f == nil {
			return fuse.ENOENT
		}
		if !fs.owns(h, f) {
			fs.refuse("the executable is another process's", h, unix.ENOENT, "owner", f.owner.PID)
			return fuse.ENOENT
		}
		out.NodeId = f.node
	}
	return fs.attr(out.NodeId, &out.Attr)
}

// Forget drops a node that the kernel no longer knows. An executed grant goes
// with it.
func (fs *FS) Forget(node, _ uint64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.nodes[node]; f != nil && f.state != fresh {
		fs.drop(f)
	}
}

// GetAttr answers stat(2).
func (fs *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return fs.attr(in.NodeId, &out.Attr)
}

func (fs *FS) attr(node uint64, a *fuse.Attr) fuse.Status {
	a.Ino, a.Nlink = node, 1
	switch node {
	case nodeRoot:
		a.Mode, a.Nlink = unix.S_IFDIR|0o555, 2
	case nodeHash:
		a.Mode = unix.S_IFREG | 0o200
	case nodeUse:
		a.Mode = unix.S_IFREG | 0o666
	default:
		f := fs.file(node)
		if f == nil {
			return fuse.ENOENT
		}
		a.Mode = unix.S_IFREG | 0o555
		a.Size = uint64(len(fs.opt.Become) + len(f.record))
		a.Blocks = (a.Size + 511) / 512
	}
	return fuse.OK
}

// SetAttr lets open(2) with O_TRUNC be, as shells do it, and nothing else.
func (fs *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	const allowed = fuse.FATTR_SIZE | fuse.FATTR_FH | fuse.FATTR_LOCKOWNER | fuse.FATTR_KILL_SUIDGID
	if in.NodeId != nodeHash && in.NodeId != nodeUse || in.Valid&^uint32(allowed) != 0 {
		return fuse.EPERM
	}
	return fs.attr(in.NodeId, &out.Attr)
}

// Access lets the kernel go on: open decides.
func (fs *FS) Access(_ <-chan struct{}, _ *fuse.AccessIn) fuse.Status { return fuse.OK }

// StatFs answers statfs(2).
func (fs *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.NameLen = 4096, 255
	return fuse.OK
}

// OpenDir allows the root to be listed.
func (fs *FS) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	if in.NodeId != nodeRoot {
		return fuse.ENOTDIR
	}
	return fuse.OK
}

// ReadDir lists the two files, never a one-time executable.
func (fs *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	for i, e := range []fuse.DirEntry{
		{Name: "caphash", Mode: unix.S_IFREG, Ino: nodeHash},
		{Name: "capuse", Mode: unix.S_IFREG, Ino: nodeUse},
	} {
		e.Off = uint64(i + 1)
		if in.Offset <= uint64(i) && !out.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

// ReleaseDir has nothing to do.
func (fs *FS) ReleaseDir(_ *fuse.ReleaseIn) {}

// GetXAttr tells the kernel which capabilities a one-time executable starts
// with: the attribute of capabilities(7), version 2, all in the permitted set
// and effective. Only its owner is told.
func (fs *FS) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	f := fs.file(h.NodeId)
	if f == nil || attr != "security.capability" || !fs.owns(h, f) {
		return 0, fuse.ENOATTR
	}
	const revision2, effective = 0x02000000, 1
	var v []byte
	v = binary.LittleEndian.AppendUint32(v, revision2|effective)
	v = binary.LittleEndian.AppendUint32(v, uint32(f.caps))
	v = binary.LittleEndian.AppendUint32(v, 0)
	v = binary.LittleEndian.AppendUint32(v, uint32(f.caps>>32))
	v = binary.LittleEndian.AppendUint32(v, 0)
	if len(dest) == 0 {
		return uint32(len(v)), fuse.OK
	}
	if len(dest) < len(v) {
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}

// Open opens a file.
func (fs *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	switch in.NodeId {
	case nodeHash:
		return fs.openHash(in, out)
	case nodeUse:
		return fs.openUse(in, out)
	}
	return fs.openGrant(in)
}

// openHash lets one process at a time, with the rights that a capability
// stands for, write hashes.
func (fs *FS) openHash(in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.Flags&unix.O_ACCMODE != unix.O_WRONLY {
		return fuse.EACCES
	}
	if !mayGrant(int(in.Pid)) {
		fs.refuse("caphash opened without CAP_SETUID and CAP_SETGID", &in.InHeader, unix.EPERM)
		return fuse.EPERM
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.hashOpen {
		return fuse.EBUSY
	}
	fs.hashOpen = true
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NONSEEKABLE
	return fuse.OK
}

// mayGrant says whether the thread has the capabilities that writing caphash
// needs, in the user namespace of factotum.
func mayGrant(tid int) bool {
	st, err := proc.ReadStatus(tid)
	if err != nil || st.Effective&requiredCaps != requiredCaps {
		return false
	}
	theirs, err := os.Readlink("/proc/" + strconv.Itoa(tid) + "/ns/user")
	if err != nil {
		return false
	}
	ours, err := os.Readlink("/proc/self/ns/user")
	return err == nil && theirs == ours
}

func (fs *FS) openUse(in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.perUID[in.Uid] >= maxHandles {
		return fuse.Status(unix.EMFILE)
	}
	fs.perUID[in.Uid]++
	fs.next++
	out.Fh = fs.next
	fs.handles[out.Fh] = &reply{uid: in.Uid}
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NONSEEKABLE
	return fuse.OK
}

// openGrant lets the owner execute the file once, and then become read its
// record once.
func (fs *FS) openGrant(in *fuse.OpenIn) fuse.Status {
	f := fs.file(in.NodeId)
	if f == nil || !fs.owns(&in.InHeader, f) {
		return fuse.EACCES
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	switch exec := in.Flags&fuse.FMODE_EXEC != 0; {
	case f.state == fresh && exec:
		f.state = executed
		delete(fs.names, f.name)
	case f.state == executed && !exec && in.Flags&unix.O_ACCMODE == unix.O_RDONLY:
		f.state = read
	default:
		return fuse.EACCES
	}
	return fuse.OK
}

// Flush is close(2), which has nothing to say: with ENOSYS the kernel asks no
// more. So a process that is being killed, ourselves above all, never waits
// for an answer.
func (fs *FS) Flush(_ <-chan struct{}, _ *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Release forgets an open file.
func (fs *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	switch in.NodeId {
	case nodeHash:
		fs.hashOpen = false
	case nodeUse:
		if r := fs.handles[in.Fh]; r != nil {
			delete(fs.handles, in.Fh)
			if fs.perUID[r.uid]--; fs.perUID[r.uid] == 0 {
				delete(fs.perUID, r.uid)
			}
		}
	}
}

// Read reads the answer from capuse, or the bytes of a one-time executable.
// The latter may be asked by the kernel on behalf of nobody (readahead); it
// goes by a file that its owner has open.
func (fs *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	if in.NodeId == nodeUse {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		r := fs.handles[in.Fh]
		if r == nil {
			return nil, fuse.EBADF
		}
		n := min(int(in.Size), len(r.out))
		b := r.out[:n]
		r.out = r.out[n:]
		return fuse.ReadResultData(b), fuse.OK
	}
	f := fs.file(in.NodeId)
	if f == nil {
		return nil, fuse.EACCES
	}
	return fuse.ReadResultData(fs.slice(f, in.Offset, int(in.Size))), fuse.OK
}

// slice is up to n bytes at offset of the program with the record after it.
func (fs *FS) slice(f *file, off uint64, n int) []byte {
	prog := fs.opt.Become
	total := uint64(len(prog) + len(f.record))
	if off >= total {
		return nil
	}
	end := min(off+uint64(n), total)
	if end <= uint64(len(prog)) {
		return prog[off:end]
	}
	b := make([]byte, 0, end-off)
	if off < uint64(len(prog)) {
		b = append(b, prog[off:]...)
		off = uint64(len(prog))
	}
	return append(b, f.record[off-uint64(len(prog)):end-uint64(len(prog))]...)
}

// Write takes a hash or a capability, whole in one write.
func (fs *FS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	var err error
	switch in.NodeId {
	case nodeHash:
		err = fs.writeHash(&in.InHeader, data)
	case nodeUse:
		err = fs.writeUse(in, data)
	default:
		err = unix.EACCES
	}
	if err != nil {
		return 0, fuse.ToStatus(err)
	}
	return uint32(len(data)), fuse.OK
}

func (fs *FS) writeHash(h *fuse.InHeader, data []byte) error {
	if !mayGrant(int(h.Pid)) {
		fs.refuse("caphash written without CAP_SETUID and CAP_SETGID", h, unix.EPERM)
		return unix.EPERM
	}
	var hash capproto.Hash
	switch {
	case len(data) == len(hash):
		copy(hash[:], data)
		return fs.table.add(hash, fs.opt.now())
	case len(data) == 1+len(hash) && data[0] == '-':
		copy(hash[:], data[1:])
		if fs.table.take(hash, fs.opt.now()) != nil {
			return unix.ENOENT
		}
		return nil
	}
	return unix.EINVAL
}

// writeUse redeems a capability.
func (fs *FS) writeUse(in *fuse.WriteIn, data []byte) error {
	// What echo(1) appends does no harm.
	if n := len(data); n > 0 && data[n-1] == '\n' {
		data = data[:n-1]
	}
	c, err := capproto.Parse(string(data))
	if err != nil {
		fs.refuse(err.Error(), &in.InHeader, unix.EINVAL)
		return unix.EINVAL
	}
	f, why, err := fs.redeem(&in.InHeader, c)
	if err != nil {
		fs.refuse(why, &in.InHeader, err, "capability", c)
		return err
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	r := fs.handles[in.Fh]
	if r == nil {
		fs.drop(f)
		return unix.EBADF
	}
	r.out = []byte(f.name + "\n")
	return nil
}

// redeem checks a capability against the caller and makes the grant.
func (fs *FS) redeem(h *fuse.InHeader, c capproto.Cap) (*file, string, error) {
	start, owner, st, err := caller(int(h.Pid))
	if err != nil {
		return nil, "caller is not to be found in /proc: " + err.Error(), unix.EPERM
	}
	keep := false
	defer func() {
		if !keep {
			owner.Close()
		}
	}()
	if st.UID != c.Grant.From || h.Uid != c.Grant.From {
		return nil, "the capability is for another source uid", unix.EPERM
	}
	// These do not use the capability up: who has it can try again rightly.
	switch {
	case st.NoNewPrivs:
		return nil, "the process has no_new_privs set, so the kernel would give it nothing", unix.EPERM
	case st.Tracer != 0:
		return nil, "the process is traced, so the kernel would give it nothing", unix.EPERM
	case st.Bounding&requiredCaps != requiredCaps:
		return nil, "the process lacks cap_setuid or cap_setgid in its bounding set", unix.EPERM
	}
	switch err := fs.table.take(c.Hash(), fs.opt.now()); err {
	case nil:
	case unix.ETIMEDOUT:
		return nil, "the capability has expired", err
	default:
		return nil, "the capability is unknown or was used before", err
	}

	login := st.Bounding&loginCap != 0
	f := &file{
		record: becomerecord.Record{UID: c.Grant.To, Groups: c.Grant.Groups, LoginUID: login}.Append(nil),
		caps:   requiredCaps, owner: owner, start: start,
	}
	if login {
		f.caps |= loginCap
	}
	keep = true
	fs.mu.Lock()
	fs.next++
	f.node = fs.next
	f.name = "become." + strconv.FormatUint(f.node, 10)
	fs.nodes[f.node] = f
	fs.names[f.name] = f
	f.timer = time.AfterFunc(fs.opt.Exec, func() { fs.expire(f) })
	fs.mu.Unlock()
	fs.opt.Log.Info("capability redeemed", "pid", owner.PID, "from", c.Grant.From, "to", c.Grant.To)
	return f, "", nil
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

// owns says whether the request comes from the process that the grant is
// bound to.
func (fs *FS) owns(h *fuse.InHeader, f *file) bool {
	st, err := proc.ReadStatus(int(h.Pid))
	if err != nil || st.PID != f.owner.PID {
		return false
	}
	s, err := proc.ReadStat(st.PID)
	return err == nil && s.Start == f.start && f.owner.Alive()
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
	case f.state == fresh:
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

// refuse logs why a caller was turned away.
func (fs *FS) refuse(why string, h *fuse.InHeader, err error, args ...any) {
	ok, dropped := fs.quiet.Allow(h.Uid, fs.opt.now())
	if !ok {
		return
	}
	args = append([]any{"reason", why, "uid", h.Uid, "pid", h.Pid, "error", err.Error()}, args...)
	if dropped > 0 {
		args = append(args, "unlogged_before", dropped)
	}
	fs.opt.Log.Warn("capability refused", args...)
}
