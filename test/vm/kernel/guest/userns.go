package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
)

// ids maps 0-9, 1000-1009 and 2000-2009 of a namespace to 100000 and up.
var ids = []syscall.SysProcIDMap{
	{ContainerID: 0, HostID: 100000, Size: 10},
	{ContainerID: 1000, HostID: 101000, Size: 10},
	{ContainerID: 2000, HostID: 102000, Size: 10},
}

// userNamespaces tests what user namespaces are to each other.
func userNamespaces() {
	var inside *exec.Cmd
	var in io.WriteCloser
	var out *bufio.Scanner
	ask := func(t *T, line string) string {
		if inside == nil {
			t.Fatalf("there is no namespace")
		}
		fmt.Fprintln(in, line)
		if !out.Scan() {
			t.Fatalf("the namespace has ended")
		}
		return out.Text()
	}
	run("caphash has one opener in each user namespace", func(t *T) {
		// Device files are root's: an administrator who wants a container to
		// have its own factotum lends it the file.
		t.must(os.Chmod(caphash, 0o222))
		inside = exec.Command("/proc/self/exe", "userns")
		inside.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
			Credential: &syscall.Credential{},
		}
		inside.Stderr = os.Stdout
		var err error
		in, err = inside.StdinPipe()
		t.must(err)
		p, err := inside.StdoutPipe()
		t.must(err)
		out = bufio.NewScanner(p)
		t.must(inside.Start())
		want(t, "open", ask(t, "open"), "ok")
		want(t, "namespaces", parameter(t, "namespaces"), "2")
	})
	run("a grant made in a user namespace is not usable in another", func(t *T) {
		theirs := ask(t, "grant 101000 102000 102000")
		want(t, "ids that the namespace lacks", write(101000, theirs), "operation not permitted")
		theirs = ask(t, "grant 1000 2000 2000")
		want(t, "theirs, as uid 1000", write(1000, theirs), "operation not permitted")
		want(t, "theirs, as their uid 1000", write(101000, theirs), "operation not permitted")
		ours := grant(t, 1000, 2000, 2000).Reveal()
		want(t, "ours, there", ask(t, "write 1000 "+ours), "operation not permitted")
		want(t, "ours, here", write(1000, ours), "ok 2000")
	})
	run("ids mean what they mean in the namespace", func(t *T) {
		os.Mkdir("/tmp/ns", 0)
		t.must(os.Chmod("/tmp/ns", 0o777))
		want(t, "there", ask(t, "redeem 1000 2000 2000,2001 id; touch /tmp/ns/f"), "uid=2000 gid=2000 groups=2000,2001")
		var st unix.Stat_t
		t.must(unix.Stat("/tmp/ns/f", &st))
		if st.Uid != 102000 || st.Gid != 102000 {
			t.Errorf("outside it is %d:%d", st.Uid, st.Gid)
		}
		want(t, "unmapped target", ask(t, "write 1000 1000@5000@2000@"+strings.Repeat("A", 43)), "invalid argument")
		want(t, "unmapped group", ask(t, "write 1000 1000@2000@5000@"+strings.Repeat("A", 43)), "invalid argument")
	})
	run("a user namespace's end frees its entries", func(t *T) {
		before := parameter(t, "entries")
		for range 20 {
			ask(t, "grant 1000 2000 2000")
		}
		if parameter(t, "entries") == before {
			t.Errorf("nothing was stored")
		}
		in.Close()
		inside.Wait()
		if !eventually(func() bool { return parameter(t, "namespaces") == "1" }) {
			t.Errorf("%s namespaces, %s entries, %s before", parameter(t, "namespaces"), parameter(t, "entries"), before)
		}
	})
	run("who may not call setgroups cannot do it this way", func(t *T) {
		deny := exec.Command("/proc/self/exe", "denyns")
		deny.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
		}
		want(t, "setgroups denied", output(deny), "operation not permitted")
		t.must(os.Chmod(caphash, 0o200))
	})
}

// insideUserNS is root of a user namespace and does what it is asked to:
//
//	open                          open caphash
//	grant FROM TO GROUPS          allow a capability and say it
//	write UID CAPABILITY          write it to capuse as UID
//	redeem FROM TO GROUPS SCRIPT  allow one, and redeem it
func insideUserNS() {
	var f *os.File
	give := func(from, to, groups string) string {
		text := from + "@" + to + "@" + groups + "@" + strings.Repeat("A", 43)
		c, err := capproto.Parse(text)
		if err == nil {
			c, err = capproto.New(c.Grant)
		}
		if err == nil {
			h := c.Hash()
			_, err = f.Write(h[:])
		}
		if err != nil {
			return err.Error()
		}
		return c.Reveal()
	}
	s := bufio.NewScanner(os.Stdin)
	for s.Scan() {
		a := strings.SplitN(s.Text(), " ", 5)
		var uid int
		if len(a) > 1 {
			fmt.Sscan(a[1], &uid)
		}
		answer := ""
		switch a[0] {
		case "open":
			var err error
			f, err = os.OpenFile(caphash, os.O_WRONLY, 0)
			answer = errName(err)
		case "grant":
			answer = give(a[1], a[2], a[3])
		case "write":
			answer = write(uid, a[2])
		case "redeem":
			answer = redeem(uid, give(a[1], a[2], a[3]), a[4])
		}
		fmt.Println(strings.ReplaceAll(answer, "\n", " | "))
	}
}

// insideDenyNS is in a user namespace where setgroups(2) is denied.
func insideDenyNS() {
	f, err := os.OpenFile(caphash, os.O_WRONLY, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	c, err := capproto.New(capproto.Grant{Groups: []uint32{0}})
	if err == nil {
		h := c.Hash()
		_, err = f.Write(h[:])
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	w, err := os.OpenFile(capuser, os.O_WRONLY, 0)
	if err == nil {
		_, err = w.WriteString(c.Reveal())
	}
	if e, ok := err.(*os.PathError); ok {
		err = e.Err
	}
	fmt.Println(err)
}
