package channels

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/crypto/ssh"

	"p9auth/sshfront/internal/passed"
	"p9auth/sshfront/internal/userlink"
)

// start starts a program; kind is a type of ChannelTimeout, without "session:".
func (x *sshChannel) start(kind string, e userlink.Exec) bool {
	e.Env = x.env
	if x.pty != nil {
		e.PTY = x.pty.ID()
	}
	if x.x11 != nil {
		e.X11 = x.x11.ID()
	}
	proc, err := x.s.user.Exec(e)
	if err != nil {
		if x.s.userGone() {
			// There is no user process to tell the client why.
			x.started, x.then = true, func() { x.apologize(err) }
			return true
		}
		x.s.failed("No session", err)
		return false
	}
	x.started, x.proc, x.env, x.then = true, proc, nil, x.begin
	x.kind = "session:" + kind
	x.s.mu.Lock()
	first := !x.s.started
	x.s.started = true
	x.s.mu.Unlock()
	if first && x.s.opt.Interactive != nil {
		x.s.opt.Interactive(x.pty != nil)
	}
	return true
}

func (x *sshChannel) apologize(err error) {
	fmt.Fprintf(x.ch.Stderr(), "%v\r\n", err)
	x.ch.SendRequest("exit-status", false, ssh.Marshal(struct{ N uint32 }{254}))
	x.ch.CloseWrite()
	x.ch.Close()
}

// abort ends the channel for having been idle.
func (x *sshChannel) abort() {
	for _, o := range x.outputs {
		o.stop()
	}
	x.ch.Close()
}

// begin starts to move data.
func (x *sshChannel) begin() {
	add := func(f *passed.File, w io.Writer, tty bool) {
		x.outputs = append(x.outputs, newOutput(f, w, tty, func() { x.act.touch() }))
	}
	if x.pty != nil {
		x.stdin = passed.New(x.pty.Master())
		add(x.stdin, x.ch, true)
	} else {
		stdin, stdout, stderr := x.proc.Stdio()
		x.stdin = passed.New(stdin)
		add(passed.New(stdout), x.ch, false)
		add(passed.New(stderr), x.ch.Stderr(), false)
	}
	x.act = x.s.watch(x.kind, x.abort)
	for _, o := range x.outputs {
		go func() {
			o.run()
			x.check("read from the program", o.broken, o.f.EndOfReads)
			if !o.tty {
				o.f.Close() // a program that still writes gets EPIPE
			}
		}()
	}
	go x.feed()
	go x.finish()
}

// check closes the channel and tells the log if data could not be moved, for another
// reason than that the program has gone.
func (x *sshChannel) check(what string, err error, isEnd func(error) bool) {
	if err != nil && !isEnd(err) {
		x.s.failed(what, err)
		x.abort()
	}
}

// feed moves the client's data to the program. A terminal has no end of file
// to be told of.
func (x *sshChannel) feed() {
	defer close(x.fed)
	err := input(x.stdin, x.ch, x.act.touch)
	x.check("write to the program", err, x.stdin.EndOfWrites)
	if x.pty == nil {
		x.stdin.Close()
	}
	if err != nil {
		x.unwanted()
		// As sshd(8): take what is on its way, so that the client never waits.
		io.Copy(io.Discard, x.ch)
	}
}

// unwanted tells the client that the program reads no more: PROTOCOL of
// OpenSSH, section 2.1.
func (x *sshChannel) unwanted() {
	if !bytes.HasPrefix(x.s.conn.ClientVersion(), []byte("SSH-2.0-OpenSSH")) {
		return
	}
	x.eow.Do(func() { x.ch.SendRequest("eow@openssh.com", false, nil) })
}

// finish waits for the program's end and closes the channel: RFC 4254 section
// 6.10. All output of the program goes before its exit status; then comes what
// programs write that it left behind. The end of the output is told last, even
// if it was earlier: a client may answer it by closing the channel, and
// x/crypto/ssh would close it too, before the exit status is known.
func (x *sshChannel) finish() {
	exit, err := x.proc.Wait()
	if err != nil {
		// The channel was closed meanwhile, or the link is.
		if gone := new(userlink.Error); !errors.As(err, &gone) {
			x.ch.Close()
		}
		return
	}
	for _, o := range x.outputs {
		o.ended()
		o.wait(o.drained)
	}
	x.stdin.HaltWrites()
	x.unwanted()
	if exit.Signal != "" {
		x.ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Name      string
			Core      bool
			Text, Tag string
		}{exit.Signal, exit.Core, "", ""}))
	} else {
		x.ch.SendRequest("exit-status", false, ssh.Marshal(struct{ N uint32 }{exit.Status}))
	}
	for _, o := range x.outputs {
		o.wait(o.eof)
	}
	x.ch.CloseWrite()
	x.ch.Close()
}

// close lets go of everything; the client has closed the channel.
func (x *sshChannel) close() {
	if !x.started {
		x.s.grown()
	}
	if x.act != nil {
		x.s.unwatch(x.act)
	}
	for _, o := range x.outputs {
		o.stop()
	}
	if x.outputs != nil {
		// What the client had sent is still for the program.
		<-x.fed
	}
	if x.proc != nil {
		x.proc.Drop()
		stdin, stdout, stderr := x.proc.Stdio()
		for _, f := range []*os.File{stdin, stdout, stderr} {
			if f != nil {
				f.Close()
			}
		}
	}
	if x.pty != nil {
		x.pty.Close()
	}
	if x.x11 != nil {
		x.x11.Close()
	}
	x.ch.Close()
}
