package sftp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"p9auth/internal/words"
)

// Exit statuses, which are sftp-server's.
const (
	exitEOF      = 0
	exitIO       = 1
	exitPoll     = 2
	exitTooLong  = 11
	exitProtocol = 255
)

const (
	// inSize holds a packet of the largest size and the beginning of what
	// follows it.
	inSize = 2 * (4 + maxPacket)
	// minRead is the room that a read of input has.
	minRead = 64 << 10
	// outHigh is how much of replies is put together before it is written.
	outHigh = 128 << 10
	// outMax is how much may wait for a client that does not read, until no
	// more requests are read from it either.
	outMax = 1 << 20
	// outKeep is how much of a buffer for replies is kept.
	outKeep = outHigh + 4 + maxPacket
)

// A Server serves one client.
type Server struct {
	opt     Options
	account Account
	address string // of the client, for the log
	log     logger
	names   names

	version uint32       // that the client speaks
	begun   bool         // the client has sent its version
	permits []permission // by place in requests

	in          []byte // requests are in[start:fill]
	start, fill int
	out         []byte // replies are out[sent:]
	sent        int
	mark        int // where the reply begins that is being put together

	packet  fields // that is being served
	handles handles
	st      unix.Stat_t
	chunk   []byte // of copy-data
}

// An Account is the user whom the server runs as.
type Account struct {
	Name string
	Home string
	UID  uint32
}

// newServer makes a server. address is the client's.
func newServer(o Options, account Account, address string, log logger, names names) *Server {
	s := &Server{opt: o, account: account, address: address, log: log, names: names, in: make([]byte, inSize), out: make([]byte, 0, outKeep)}
	s.handles.free = -1
	for i := range requests {
		s.permits = append(s.permits, o.permission(&requests[i]))
	}
	return s
}

// A request says how a type of packet is answered.
type request struct {
	name    string // that -P and -p know it by
	typ     byte   // of the packet
	ext     string // name of the extension, where typ is typeExtended
	version string // of the extension, which the server announces
	writes  bool   // refused by -R
	serve   func(s *Server, id uint32, f *fields) error
	where   string // in OpenSSH's source; begins a line about a packet that is broken
}

// requests are all requests, in the order of OpenSSH's. open looks at -R
// itself.
var requests []request

func init() {
	requests = []request{
		{"open", typeOpen, "", "", false, (*Server).open, "process_open: parse"},
		{"close", typeClose, "", "", false, (*Server).close, "process_close: parse"},
		{"read", typeRead, "", "", false, (*Server).read, "process_read: parse"},
		{"write", typeWrite, "", "", true, (*Server).write, "process_write: parse"},
		{"lstat", typeLstat, "", "", false, (*Server).lstat, "process_do_stat: parse"},
		{"fstat", typeFstat, "", "", false, (*Server).fstat, "process_fstat: parse"},
		{"setstat", typeSetstat, "", "", true, (*Server).setstat, "process_setstat: parse"},
		{"fsetstat", typeFsetstat, "", "", true, (*Server).fsetstat, "process_fsetstat: parse"},
		{"opendir", typeOpendir, "", "", false, (*Server).opendir, "process_opendir: parse"},
		{"readdir", typeReaddir, "", "", false, (*Server).readdir, "process_readdir: parse"},
		{"remove", typeRemove, "", "", true, (*Server).remove, "process_remove: parse"},
		{"mkdir", typeMkdir, "", "", true, (*Server).mkdir, "process_mkdir: parse"},
		{"rmdir", typeRmdir, "", "", true, (*Server).rmdir, "process_rmdir: parse"},
		{"realpath", typeRealpath, "", "", false, (*Server).realpath, "process_realpath: parse"},
		{"stat", typeStat, "", "", false, (*Server).stat, "process_do_stat: parse"},
		{"rename", typeRename, "", "", true, (*Server).rename, "process_rename: parse"},
		{"readlink", typeReadlink, "", "", false, (*Server).readlink, "process_readlink: parse"},
		{"symlink", typeSymlink, "", "", true, (*Server).symlink, "process_symlink: parse"},
		{"posix-rename", typeExtended, "posix-rename@openssh.com", "1", true, (*Server).posixRename, "process_extended_posix_rename: parse"},
		{"statvfs", typeExtended, "statvfs@openssh.com", "2", false, (*Server).statvfs, "process_extended_statvfs: parse"},
		{"fstatvfs", typeExtended, "fstatvfs@openssh.com", "2", false, (*Server).fstatvfs, "process_extended_fstatvfs: parse"},
		{"hardlink", typeExtended, "hardlink@openssh.com", "1", true, (*Server).hardlink, "process_extended_hardlink: parse"},
		{"fsync", typeExtended, "fsync@openssh.com", "1", true, (*Server).fsync, "process_extended_fsync: parse"},
		{"lsetstat", typeExtended, "lsetstat@openssh.com", "1", true, (*Server).lsetstat, "process_extended_lsetstat: parse"},
		{"limits", typeExtended, "limits@openssh.com", "1", false, (*Server).limits, ""},
		{"expand-path", typeExtended, "expand-path@openssh.com", "1", false, (*Server).expandPath, "process_extended_expand: parse"},
		{"copy-data", typeExtended, "copy-data", "1", true, (*Server).copyData, "process_extended_copy_data: buffer error"},
		{"home-directory", typeExtended, "home-directory", "1", false, (*Server).homeDirectory, "process_extended_home_directory: parse"},
		{"users-groups-by-id", typeExtended, "users-groups-by-id@openssh.com", "1", false, (*Server).usersGroups, "process_extended_get_users_groups_by_id: parse"},
	}
}

// A permission is what the arguments say of a request.
type permission int

const (
	permitted permission = iota
	listed               // in -p
	readOnly             // refused by -R
	denied               // refused by -P
	unlisted             // not in -p
)

func (o *Options) permission(r *request) permission {
	switch {
	case o.readOnly && r.writes:
		return readOnly
	case slices.Contains(o.deny, r.name):
		return denied
	case slices.Contains(o.allow, r.name):
		return listed
	case o.allow != nil:
		return unlisted
	}
	return permitted
}

// permit says whether the request i may be carried out.
func (s *Server) permit(i int) bool {
	name := requests[i].name
	switch s.permits[i] {
	case permitted:
		return true
	case listed:
		s.log.printf(debug2, "Permitting allowlisted %s request", name)
		return true
	case readOnly:
		s.log.printf(verbose, "Refusing %s request in read-only mode", name)
	case denied:
		s.log.printf(verbose, "Refusing denylisted %s request", name)
	case unlisted:
		s.log.printf(verbose, "Refusing non-allowlisted %s request", name)
	}
	return false
}

// An ending is why a session ends that the client did not end.
type ending struct {
	status int // for exit
	level  level
	text   string
}

func (e *ending) Error() string { return e.text }

func broken(where string, err error) error {
	return &ending{exitProtocol, fatal, fmt.Sprintf("%s: %v", where, err)}
}

// serve answers one packet, without its length. The replies are appended to
// s.out. An error ends the session.
func (s *Server) serve(packet []byte) error {
	typ := packet[0]
	f := &s.packet
	*f = fields{b: packet[1:], log: &s.log}
	switch {
	case typ == typeInit:
		if s.version = f.u32(); f.err != nil {
			return broken("process_init: parse", f.err)
		}
		s.hello()
		s.begun = true
		return nil
	case !s.begun && typ == typeExtended:
		return &ending{exitProtocol, fatal, "Received extended request before init"}
	case !s.begun:
		return &ending{exitProtocol, fatal, fmt.Sprintf("Received %d request before init", typ)}
	}
	id := f.u32()
	if f.err != nil {
		if typ == typeExtended {
			return broken("process: parse extended ID", f.err)
		}
		return broken("process: parse ID", f.err)
	}
	i := -1
	if typ == typeExtended {
		name := f.text()
		if f.err != nil {
			return broken("process_extended: parse", f.err)
		}
		if i = extension(name); i < 0 {
			s.log.printf(failed, "Unknown extended request \"%.100s\"", name)
			s.status(id, statusUnsupported)
			return nil
		}
	} else if i = int(byType[typ]) - 1; i < 0 {
		// OpenSSH does not answer it either.
		s.log.printf(failed, "Unknown message %d", typ)
		return nil
	}
	if !s.permit(i) {
		s.status(id, statusPermissionDenied)
		return nil
	}
	if err := requests[i].serve(s, id, f); err != nil {
		return err
	}
	if f.err != nil {
		return broken(requests[i].where, f.err)
	}
	return nil
}

// byType are places in requests, plus one, by type of packet.
var byType [256]uint8

func init() {
	for i := range requests {
		if r := &requests[i]; r.typ != typeExtended {
			byType[r.typ] = uint8(i + 1)
		}
	}
}

// extension returns the place in requests of an extension, or -1.
func extension(name string) int {
	return slices.IndexFunc(requests, func(r request) bool { return r.typ == typeExtended && r.ext == name })
}

// hello answers the client's version with the server's, and with the extensions
// that the arguments permit.
func (s *Server) hello() {
	s.log.printf(verbose, "received client version %d", s.version)
	s.mark = len(s.out)
	s.out = append(s.out, 0, 0, 0, 0, typeVersion)
	s.putU32(protocolVersion)
	for i := range requests {
		r := &requests[i]
		if r.typ != typeExtended {
			continue
		}
		if !s.permit(i) {
			s.log.printf(debug2, "compose_extension: refusing to advertise disallowed extension %s", r.ext)
			continue
		}
		s.putString(r.ext)
		s.putString(r.version)
	}
	s.end()
}

// next returns the next packet that is there as a whole, without its length,
// or nil. It is valid until input is read again.
func (s *Server) next() ([]byte, error) {
	// As sftp-server, which looks at the length when a type is there too.
	if s.fill-s.start < 5 {
		return nil, nil
	}
	n := int64(binary.BigEndian.Uint32(s.in[s.start:]))
	if n > maxPacket {
		return nil, &ending{exitTooLong, failed, fmt.Sprintf("bad message from %s local user %s", s.address, s.account.Name)}
	}
	if n == 0 {
		return nil, broken("process: parse ID", errIncomplete)
	}
	if int64(s.fill-s.start) < 4+n {
		return nil, nil
	}
	p := s.in[s.start+4 : s.start+4+int(n)]
	s.start += 4 + int(n)
	return p, nil
}

// run serves the client that writes to the descriptor in and reads from out,
// and returns the status to exit with.
func (s *Server) run(in, out int) int {
	s.log.printf(info, "session opened for local user %s from [%s]", s.account.Name, s.address)
	if s.opt.chdir {
		// As sftp-server(8): where it cannot go it stays.
		if err := unix.Chdir(s.opt.dir); err != nil {
			s.log.printf(failed, "chdir to \"%s\" failed: %s", s.opt.dir, words.Error(err))
		}
	}
	err := s.loop(in, out)
	var e *ending
	status := exitEOF
	if errors.As(err, &e) {
		status = e.status
		if e.text != "" {
			s.log.printf(e.level, "%s", e.text)
		}
	}
	s.handles.logAll(&s.log)
	s.log.printf(info, "session closed for local user %s from [%s]", s.account.Name, s.address)
	return status
}

// loop serves until the client or an error ends it.
func (s *Server) loop(in, out int) error {
	for {
		for s.waiting() < outHigh {
			p, err := s.next()
			if err == nil && p != nil {
				err = s.serve(p)
			}
			if err != nil {
				return s.finish(out, err)
			}
			if p == nil {
				break
			}
		}
		if s.waiting() > 0 {
			if err := s.deliver(in, out); err != nil {
				return s.finish(out, err)
			}
		}
		if s.whole() {
			continue
		}
		if err := s.fillFrom(in); err != nil {
			return s.finish(out, err)
		}
	}
}

// waiting is how many bytes of replies the client has not got.
func (s *Server) waiting() int { return len(s.out) - s.sent }

// finish delivers what was answered before the session ends.
func (s *Server) finish(out int, err error) error {
	for {
		if done, werr := s.writeOut(out); done || werr != nil {
			return err
		}
		if poll([]unix.PollFd{{Fd: int32(out), Events: unix.POLLOUT}}) != nil {
			return err
		}
	}
}

// deliver writes the replies that wait. A client may send requests for long
// before it reads a reply: while it does not read, its requests are read, and
// where they fill the buffer they are served, until too much waits.
func (s *Server) deliver(in, out int) error {
	for {
		if done, err := s.writeOut(out); err != nil || done {
			return err
		}
		fds := [2]unix.PollFd{{Fd: int32(out), Events: unix.POLLOUT}, {Fd: int32(in), Events: unix.POLLIN}}
		n := 2
		if !s.spare() {
			if s.waiting() < outMax {
				p, err := s.next()
				if err == nil && p != nil {
					err = s.serve(p)
				}
				if err != nil {
					return err
				}
				continue
			}
			n = 1
		}
		if err := poll(fds[:n]); err != nil {
			return &ending{exitPoll, failed, "poll: " + err.Error()}
		}
		if fds[0].Revents == 0 {
			if err := s.fillFrom(in); err != nil {
				return err
			}
		}
	}
}

// spare says whether there is room for more input. A packet that is not there as
// a whole always has it.
func (s *Server) spare() bool { return !s.whole() || len(s.in)-(s.fill-s.start) >= minRead }

// whole reports whether a packet is there as a whole, or one that is refused.
func (s *Server) whole() bool {
	if s.fill-s.start < 5 {
		return false
	}
	n := int64(binary.BigEndian.Uint32(s.in[s.start:]))
	return n > maxPacket || int64(s.fill-s.start) >= 4+n
}

// fillFrom reads some input, and waits for it.
func (s *Server) fillFrom(in int) error {
	if s.start == s.fill {
		s.start, s.fill = 0, 0
	} else if len(s.in)-s.start < 4+maxPacket || len(s.in)-s.fill < minRead {
		s.fill = copy(s.in, s.in[s.start:s.fill])
		s.start = 0
	}
	for {
		n, err := readWaiting(in, s.in[s.fill:])
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			if err := poll([]unix.PollFd{{Fd: int32(in), Events: unix.POLLIN}}); err != nil {
				return &ending{exitPoll, failed, "poll: " + err.Error()}
			}
		case err != nil:
			return &ending{exitIO, failed, "read: " + err.Error()}
		case n == 0:
			return &ending{exitEOF, debug1, "read eof"}
		default:
			s.fill += n
			return nil
		}
	}
}

// writeOut writes replies, as many as out takes, and says whether that were all.
func (s *Server) writeOut(out int) (done bool, err error) {
	for s.waiting() > 0 {
		n, err := write(out, s.out[s.sent:])
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return false, nil
		case err == unix.EPIPE || err == nil && n == 0:
			return false, &ending{exitEOF, debug1, "write eof"}
		case err != nil:
			return false, &ending{exitIO, failed, "write: " + err.Error()}
		default:
			s.sent += n
		}
	}
	s.sent = 0
	s.out = s.out[:0]
	if cap(s.out) > outMax {
		s.out = make([]byte, 0, outKeep)
	}
	return true, nil
}

// nonblocking makes writes to a pipe or a socket return rather than wait. Of a
// terminal, say, other processes would notice.
func nonblocking(fd int) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return
	}
	if t := st.Mode & unix.S_IFMT; t == unix.S_IFIFO || t == unix.S_IFSOCK {
		unix.SetNonblock(fd, true)
	}
}

// Main is the process that serves standard input and output with the arguments
// of internal-sftp. It never returns.
func Main(args []string) {
	status, err := main(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "internal-sftp: %v\n", err)
	}
	os.Exit(status)
}
