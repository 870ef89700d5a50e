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
// A capability written to capuse makes a grant, which belongs to the process
// that wrote it, as long as that is the same user. The answer is the name of an
// executable file which only that process can look up and execute, once, within
// a few seconds. The file is the become program with a record
// (internal/becomerecord) in it, and the kernel is told that it has the file
// capabilities cap_setuid and cap_setgid: see capabilities(7). That works only on
// a mount without nosuid, for a process which is not traced, has not set
// no_new_privs, and has both in its bounding set.
//
// A hash that is written to caphash allows to become somebody, and leaves it to
// the redeemer what to execute. A hash given to Bind, which only the process
// that serves the files can call, comes with a record that says all of it.
//
// This is a fuse.RawFileSystem, not one of go-fuse's package fs, as everything
// here depends on what only raw requests have: the caller's thread, whether an
// open is for execution, and answers that are never cached.
package capfs

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"p9auth/internal/loglimit"
)

// Options says how to serve. The zero value of a number means its default.
type Options struct {
	Become   []byte        // the become program's bytes
	Context  string        // the SELinux context of all files; "": as the policy has FUSE's
	MaxCaps  int           // capabilities that may be outstanding; 1024
	Lifetime time.Duration // of a capability; two minutes, and never more
	Exec     time.Duration // from redemption to exec; ten seconds
	Log      *slog.Logger

	// Redeemed and Refused write the log lines of a capability that is redeemed
	// or refused, of which the arguments are as slog.Logger.Info has them; a
	// daemon that counts them does it there. nil: they go to Log.
	Redeemed, Refused func(args ...any)

	// Lost is called each time that somebody has taken the mount away, or made it
	// useless, with the reason; it is mounted again then. Gone is called when that
	// cannot be done, and the file system is of no use any more. nil: they go to Log.
	Lost func(reason string)
	Gone func(error)

	now func() time.Time // for tests of the table's clock
}

const (
	nodeRoot = 1 + iota // fuse.FUSE_ROOT_ID
	nodeHash
	nodeUse
	nodeGrants // the first grant's; each has a number of its own
)

// FS is the file system. Its methods other than those in mount.go answer
// requests of the kernel.
type FS struct {
	fuse.RawFileSystem // what is not answered below is ENOSYS
	opt                Options
	program            program
	table              table
	at                 *mounted    // where it is mounted; the watch's alone, once there is one
	over               atomic.Bool // it is to be mounted no more
	quiet              loglimit.Limiter

	mu       sync.Mutex
	hashOpen bool              // somebody has caphash open
	nodes    map[uint64]*file  // grants by node
	names    map[string]*file  // grants that may be looked up
	handles  map[uint64]*reply // open capuse files
	perUID   map[uint32]int    // how many of them
	next     uint64            // next node or handle number
}

func newFS(opt Options, p program) *FS {
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
	if opt.Redeemed == nil {
		opt.Redeemed = func(args ...any) { opt.Log.Info("capability redeemed", args...) }
	}
	if opt.Refused == nil {
		opt.Refused = func(args ...any) { opt.Log.Warn("capability refused", args...) }
	}
	if opt.Lost == nil {
		opt.Lost = func(reason string) { opt.Log.Error("the capability files were lost", "reason", reason) }
	}
	if opt.Gone == nil {
		opt.Gone = func(err error) { opt.Log.Error("no capability files", "error", err.Error()) }
	}
	return &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		opt:           opt,
		program:       p,
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
// The kernel caches no name, so that it asks for each process.
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
		if why := fs.owns(h, f); why != "" {
			fs.refuse(why, h, unix.ENOENT, "owner", f.owner.PID)
			return fuse.ENOENT
		}
		out.NodeId = f.node
		// They never change, and allow nothing.
		out.SetAttrTimeout(time.Minute)
	}
	return fs.attr(out.NodeId, &out.Attr)
}

// Forget drops a node that the kernel no longer knows. An executed grant goes
// with it.
func (fs *FS) Forget(node, _ uint64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.nodes[node]; f != nil && f.executed {
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
		a.Size = uint64(len(f.bytes))
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

// Flush is close(2), which has nothing to say: with ENOSYS the kernel asks no
// more. So a process that is being killed, ourselves above all, never waits
// for an answer.
func (fs *FS) Flush(_ <-chan struct{}, _ *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Release forgets an open file. A grant is opened once, to be executed, and the kernel
// has it open for as long as become runs.
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
	default:
		if f := fs.nodes[in.NodeId]; f != nil && f.executed {
			fs.drop(f)
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
	from := min(in.Offset, uint64(len(f.bytes)))
	to := min(from+uint64(in.Size), uint64(len(f.bytes)))
	return fuse.ReadResultData(f.bytes[from:to]), fuse.OK
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
	fs.opt.Refused(args...)
}
