package capfs

import (
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/becomerecord"
	"p9auth/internal/proc"
)

const maxHandles = 256 // open capuse files a uid may have

// requiredCaps are what become cannot do without; loginCap lets it change a
// login uid that was set before; rootCap is for records with a root directory, and
// mountsCaps for those with a mount namespace: see needed() in become.c.
const (
	requiredCaps = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	loginCap     = 1 << unix.CAP_AUDIT_CONTROL
	rootCap      = 1 << unix.CAP_SYS_CHROOT
	mountsCaps   = 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_CHROOT
)

// capsOf are the capabilities without which become cannot do what a record says,
// beyond requiredCaps.
func capsOf(b *becomerecord.Bound) uint64 {
	if b == nil {
		return 0
	}
	caps := b.Inheritable
	if b.Root != nil {
		caps |= rootCap
	}
	if b.Mounts != nil {
		caps |= mountsCaps
	}
	if b.TTYAudit != 0 {
		caps |= loginCap
	}
	return caps
}

// A reply is an open capuse file and what its owner has still to read.
type reply struct {
	uid uint32
	out []byte
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

func (fs *FS) writeHash(h *fuse.InHeader, data []byte) error {
	if !mayGrant(int(h.Pid)) {
		fs.refuse("caphash written without CAP_SETUID and CAP_SETGID", h, unix.EPERM)
		return unix.EPERM
	}
	return fs.putHash(data)
}

// putHash does what a write to caphash asks for: see capuse(4).
func (fs *FS) putHash(data []byte) error {
	var hash capproto.Hash
	switch {
	case len(data) == len(hash):
		copy(hash[:], data)
		return fs.table.add(hash, nil, fs.opt.now())
	case len(data) == 1+len(hash) && data[0] == '-':
		copy(hash[:], data[1:])
		if _, err := fs.table.take(hash, fs.opt.now()); err != nil {
			return unix.ENOENT
		}
		return nil
	}
	return unix.EINVAL
}

// OpenHash is caphash for the process that serves the files: a Write does what
// write(2) does there, with the same errors. Until it is closed nobody can open
// the file, which holds for it as for other openers.
//
// The process must not open the file itself. A thread that waits for an answer of
// its own process cannot be killed, and keeps /dev/fuse open: after a SIGKILL
// nobody would answer it, and the process could never end.
func (fs *FS) OpenHash() (io.WriteCloser, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.hashOpen {
		return nil, unix.EBUSY
	}
	fs.hashOpen = true
	return &ownHash{fs}, nil
}

// An ownHash is caphash, open in the process that serves it.
type ownHash struct{ fs *FS }

func (o *ownHash) Write(data []byte) (int, error) {
	if err := o.fs.putHash(data); err != nil {
		return 0, err
	}
	return len(data), nil
}

func (o *ownHash) Close() error {
	o.fs.mu.Lock()
	defer o.fs.mu.Unlock()
	o.fs.hashOpen = false
	return nil
}

// Bind allows the capability that has this hash, as a write to caphash does, and
// binds it: whoever redeems it executes what r says. From and UID are those of
// the capability. Groups are too, but may go on where the capability has as many
// as it can name (capproto.MaxGroups). LoginUID is not looked at. The record is
// kept as it is and must not be changed afterwards.
//
// It returns ENOSPC when too many capabilities are waiting to be redeemed, EEXIST
// when this one is, and an error that says what is wrong with the record.
func (fs *FS) Bind(h capproto.Hash, r becomerecord.Record) error {
	if r.Bound == nil {
		return errors.New("the record is not bound to a program")
	}
	if _, err := r.Encode(); err != nil {
		return err
	}
	return fs.table.add(h, &r, fs.opt.now())
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
	bound, err := fs.table.take(c.Hash(), fs.opt.now())
	switch err {
	case nil:
	case unix.ETIMEDOUT:
		return nil, "the capability has expired", err
	default:
		return nil, "the capability is unknown or was used before", err
	}
	r := becomerecord.Record{From: c.Grant.From, UID: c.Grant.To, Groups: c.Grant.Groups}
	if bound != nil {
		if !agrees(bound, c.Grant) {
			return nil, "the capability and the record that it is bound to are of different users or groups", unix.EPERM
		}
		r = *bound
		if r.Bound, err = keepStack(r.Bound, st.PID); err != nil {
			return nil, "the limits of the process: " + err.Error(), unix.EPERM
		}
	}
	f := &file{from: c.Grant.From, caps: requiredCaps, owner: owner, start: start}
	if r.LoginUID = st.Bounding&loginCap != 0 && (r.Bound == nil || !r.Bound.KeepLoginUID); r.LoginUID {
		f.caps |= loginCap
	}
	more := capsOf(r.Bound)
	if missing := more &^ st.Bounding; missing != 0 {
		return nil, "the process lacks " + names(missing) + " in its bounding set", unix.EPERM
	}
	f.caps |= more
	record, err := r.Encode()
	if err != nil {
		return nil, "the record of the grant: " + err.Error(), unix.EINVAL
	}
	f.bytes = fs.program.with(record)
	keep = true
	fs.mu.Lock()
	fs.next++
	f.node = fs.next
	f.name = "become." + strconv.FormatUint(f.node, 10)
	fs.nodes[f.node] = f
	fs.names[f.name] = f
	f.timer = time.AfterFunc(fs.opt.Exec, func() { fs.expire(f) })
	fs.mu.Unlock()
	fs.opt.Redeemed("pid", owner.PID, "from", c.Grant.From, "to", c.Grant.To)
	return f, "", nil
}

// keepStack is b with the limit of the stack as the process has it, if b sets
// none: the kernel lowers it when it starts become.
func keepStack(b *becomerecord.Bound, pid int) (*becomerecord.Bound, error) {
	if _, ok := b.Limits[unix.RLIMIT_STACK]; ok {
		return b, nil
	}
	limits, err := proc.ReadLimits(pid)
	if err != nil {
		return nil, err
	}
	soft, hard, err := limits.Limit("Max stack size")
	if err != nil {
		return nil, err
	}
	c := *b
	c.Limits = map[int]becomerecord.Limit{unix.RLIMIT_STACK: {Soft: soft, Hard: hard}}
	maps.Copy(c.Limits, b.Limits)
	return &c, nil
}

// agrees says whether a capability names the users and groups of the record that
// it is bound to. One that has no room for all groups names the first of them.
func agrees(r *becomerecord.Record, g capproto.Grant) bool {
	groups := r.Groups
	if len(g.Groups) == capproto.MaxGroups && len(groups) > capproto.MaxGroups {
		groups = groups[:capproto.MaxGroups]
	}
	return r.From == g.From && r.UID == g.To && slices.Equal(groups, g.Groups)
}

// capNames are the names of become's own capabilities, as capabilities(7) has them.
var capNames = map[int]string{
	unix.CAP_SYS_CHROOT: "cap_sys_chroot", unix.CAP_SYS_PTRACE: "cap_sys_ptrace",
	unix.CAP_SYS_ADMIN: "cap_sys_admin", unix.CAP_AUDIT_CONTROL: "cap_audit_control",
}

// names are those of a set of capabilities. Others than become's own are numbers, as in
// linux/capability.h.
func names(set uint64) string {
	var list []string
	for n := range 64 {
		switch {
		case set>>n&1 == 0:
		case capNames[n] != "":
			list = append(list, capNames[n])
		default:
			list = append(list, "capability "+strconv.Itoa(n))
		}
	}
	return strings.Join(list, ", ")
}
