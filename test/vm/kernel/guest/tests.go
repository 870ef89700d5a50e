package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
)

// The opened caphash, while a test is its owner.
var hash *os.File

func openHash(t *T) {
	f, err := os.OpenFile(caphash, os.O_WRONLY, 0)
	t.must(err)
	hash = f
}

func closeHash() {
	if hash != nil {
		hash.Close()
	}
	hash = nil
}

// grant makes a capability and allows it.
func grant(t *T, from, to uint32, groups ...uint32) capproto.Cap {
	c, err := capproto.New(capproto.Grant{From: from, To: to, Groups: groups})
	t.must(err)
	h := c.Hash()
	_, err = hash.Write(h[:])
	t.must(err)
	return c
}

func want(t *T, what, got, want string) {
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func tests() {
	run("the module loads, its devices have their modes", func(t *T) {
		t.must(load(""))
		for name, mode := range map[string]uint32{caphash: 0o200, capuser: 0o666} {
			var st unix.Stat_t
			t.must(unix.Stat(name, &st))
			if st.Mode != unix.S_IFCHR|mode || st.Uid != 0 {
				t.Errorf("%s: mode %o, owner %d", name, st.Mode, st.Uid)
			}
		}
		openHash(t)
	})
	run("a redeemer is the target, with nothing else", redeemerIsTarget)
	run("an unprivileged shell that writes to capuse is the target", func(t *T) {
		c := grant(t, 1500, 2000, 2000, 2001)
		sh := exec.Command("/bin/bash", "-c", `printf %s "$CAP" >/dev/capuse; id; grep -E '^Cap(Prm|Eff|Inh|Amb):.*[1-9a-f]$' /proc/self/status`)
		sh.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1500, Gid: 1500}}
		sh.Env = []string{"PATH=/usr/bin:/bin", "CAP=" + c.Reveal()}
		want(t, "id", output(sh), "uid=2000 gid=2000 groups=2000,2001")
	})
	run("root is a target like another", func(t *T) {
		got := redeem(1500, grant(t, 1500, 0, 0).Reveal(), "id -u; id -G; head -c 5 /etc/shadow; echo; grep CapEff /proc/self/status | grep -c fff")
		want(t, "as root", got, "0\n0\nroot:\n1")
	})
	run("many groups, the most there may be", func(t *T) {
		groups := []uint32{7}
		for i := range uint32(capproto.MaxGroups - 1) {
			groups = append(groups, 100000-i)
		}
		got := redeem(1500, grant(t, 1500, 2000, groups...).Reveal(), "id -g; id -G | wc -w")
		want(t, "groups", got, "7\n4096")
		groups[1] = 7
		want(t, "twice the same", redeem(1500, grant(t, 1500, 2000, 7, 7, 5).Reveal(), "id -G"), "7 5")
	})
	run("a newline after a capability does no harm", func(t *T) {
		want(t, "write", write(1500, grant(t, 1500, 2000, 2000).Reveal()+"\n"), "ok 2000")
	})
	run("used: a capability works once", func(t *T) {
		c := grant(t, 1500, 2000, 2000).Reveal()
		want(t, "first", write(1500, c), "ok 2000")
		want(t, "second", write(1500, c), "operation not permitted")
	})
	run("stolen: another uid is refused, and the capability is spent", func(t *T) {
		c := grant(t, 1500, 2000, 2000).Reveal()
		want(t, "thief", write(1501, c), "operation not permitted")
		want(t, "root as thief", write(0, grant(t, 1500, 2000, 2000).Reveal()), "operation not permitted")
		want(t, "owner", write(1500, c), "operation not permitted")
	})
	run("altered: one change is refused and costs nothing", func(t *T) {
		c := grant(t, 1500, 2000, 2000)
		s := c.Reveal()
		d := c
		d.Key[31] ^= 1
		want(t, "attempts", write(1500, d.Reveal(),
			strings.Replace(s, "@2000@2000@", "@0@2000@", 1),
			strings.Replace(s, "@2000@2000@", "@2000@0@", 1),
			strings.Replace(s, "@2000@2000@", "@2000@2000,0@", 1), s),
			strings.Repeat("operation not permitted\n", 4)+"ok 2000")
	})
	run("malformed: what is no capability is EINVAL", malformed)
	run("expired: told apart for as long again, then unknown", func(t *T) {
		// A slow machine must not miss the time between the two: the process
		// that is late is there before.
		const life = 5 * time.Second
		setParameter(t, "lifetime", "5")
		defer setParameter(t, "lifetime", "120")
		late, later := grant(t, 1500, 2000, 2000).Reveal(), grant(t, 1500, 2000, 2000).Reveal()
		expires := time.After(life + life/100)
		c := as(1500, "write", capuser)
		in, err := c.StdinPipe()
		t.must(err)
		var out strings.Builder
		c.Stdout = &out
		t.must(c.Start())
		<-expires
		io.WriteString(in, late+"\x01"+late)
		in.Close()
		c.Wait()
		want(t, "late", strings.TrimSpace(out.String()), "connection timed out\noperation not permitted")
		time.Sleep(life)
		want(t, "much later", write(1500, later), "operation not permitted")
		if !eventually(func() bool { return parameter(t, "entries") == "0" }) {
			t.Errorf("%s entries are left", parameter(t, "entries"))
		}
	})
	run("revoked: gone, and only once", func(t *T) {
		c := grant(t, 1500, 2000, 2000)
		h := c.Hash()
		revoke := append([]byte("-"), h[:]...)
		_, err := hash.Write(revoke)
		t.must(err)
		if _, err := hash.Write(revoke); errName(err.(*os.PathError).Err) != "ENOENT" {
			t.Errorf("twice: %v", err)
		}
		want(t, "redeem", write(1500, c.Reveal()), "operation not permitted")
	})
	run("a capability outlives the descriptor that it was granted by", func(t *T) {
		c := grant(t, 1500, 2000, 2000)
		closeHash()
		time.Sleep(3 * time.Second) // some sweeps
		openHash(t)
		want(t, "redeem", write(1500, c.Reveal()), "ok 2000")
	})
	run("a hash written twice is one capability", func(t *T) {
		c := grant(t, 1500, 2000, 2000)
		h := c.Hash()
		_, err := hash.Write(h[:])
		t.must(err)
		want(t, "first", write(1500, c.Reveal()), "ok 2000")
		want(t, "second", write(1500, c.Reveal()), "operation not permitted")
	})
	run("of eight processes that write it at once, one is the target", func(t *T) {
		for range 5 {
			c := grant(t, 1500, 2000, 2000).Reveal()
			said := make(chan string)
			for range 8 {
				go func() { said <- write(1500, c) }()
			}
			count := map[string]int{}
			for range 8 {
				count[<-said]++
			}
			if count["ok 2000"] != 1 || count["operation not permitted"] != 7 {
				t.Errorf("they say %v", count)
			}
		}
	})
	run("caphash: one opener, with rights, for writing", caphashRules)
	run("there are bounds", func(t *T) {
		var n int
		fmt.Sscan(parameter(t, "entries"), &n)
		setParameter(t, "max", strconv.Itoa(n+4))
		defer setParameter(t, "max", "1024")
		// Up to n are there, of which some may expire meanwhile.
		var err error
		stored := 0
		for ; err == nil && stored < n+5; stored++ {
			h := capproto.Hash{byte(stored), byte(stored >> 8), 1}
			_, err = hash.Write(h[:])
		}
		if err == nil || errName(err.(*os.PathError).Err) != "ENOSPC" || stored < 5 {
			t.Errorf("number %d, one too many: %v", stored, err)
		}
		for name, values := range map[string][]string{"lifetime": {"0", "121", "-1", "x"}, "max": {"0", "65537"}} {
			for _, v := range values {
				if os.WriteFile(parameters+"/"+name, []byte(v), 0) == nil {
					t.Errorf("%s takes %s", name, v)
				}
			}
		}
	})
	run("no_new_privs and a tracer are refused, at no cost", func(t *T) {
		c := grant(t, 1500, 2000, 2000).Reveal()
		nnp := as(1500, "redeem", c, "id -u")
		nnp.Env = append(nnp.Env, "NNP=1")
		if got := output(nnp); !strings.Contains(got, "operation not permitted") || !strings.Contains(got, "kernel's log says why") {
			t.Errorf("no_new_privs: %s", got)
		}
		traced := as(1500, "traceme")
		// A signal of Go's own, to preempt it on a slow kernel, would stop it,
		// and we are no tracer that has it go on.
		traced.Env = append(traced.Env, "GODEBUG=asyncpreemptoff=1")
		traced.Stdin = strings.NewReader(c)
		want(t, "traced", output(traced), "operation not permitted")
		want(t, "after that", write(1500, c), "ok 2000")
	})
	run("RLIMIT_NPROC is charged to the target", nproc)
	run("what fails after the redemption is said, with become's codes", func(t *T) {
		c := as(1500, "redeem-bad", grant(t, 1500, 2000, 2000).Reveal())
		out, err := c.CombinedOutput()
		want(t, "message", strings.TrimSpace(string(out)), "become: cannot execute /no/such: no such file or directory")
		if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != 127 {
			t.Errorf("exit: %v", err)
		}
	})
	run("io_uring cannot redeem on another's behalf", func(t *T) {
		for range 10 {
			for _, how := range []string{"personality", "async"} {
				c := as(1500, "uring", how)
				c.Stdin = strings.NewReader(grant(t, 1500, 2000, 2000).Reveal())
				if got := output(c); got != "EPERM 1500" && !strings.HasPrefix(got, "no io_uring") {
					t.Errorf("%s: %s", how, got)
				}
			}
		}
	})
	grantIDTests()
	userNamespaces()
	historical()
	run("fuzz of capuse: errors only", func(t *T) { want(t, "fuzz", output(as(1500, "fuzz", capuser)), "quiet") })
	run("fuzz of caphash: errors only", func(t *T) {
		closeHash()
		defer openHash(t)
		want(t, "fuzz", output(as(0, "fuzz", caphash)), "quiet")
	})
	run("8 writers and 8 users at once", stress)
	run("the module cannot be unloaded while caphash is open", func(t *T) {
		if err := unload(); err != unix.EWOULDBLOCK {
			t.Errorf("unload: %v", err)
		}
	})
	run("it unloads with capabilities outstanding", func(t *T) {
		for range 10 {
			grant(t, 1500, 2000, 2000)
		}
		closeHash()
		if n := parameter(t, "entries"); n == "0" {
			t.Errorf("no entries")
		}
		unloaded(t)
	})
	run("opens race with unload", unloadRace)
	examples()
	services()
	run("no memory of ours is leaked, says kmemleak if there is one", leaks)
	run("the kernel's log has no splat and no secret", kernelLog)
	run("it unloads in the end, with nothing left", func(t *T) {
		unloaded(t)
		slabs, err := os.ReadFile("/proc/slabinfo")
		t.must(err)
		if strings.Contains(string(slabs), "p9_entry") {
			t.Errorf("its slab cache is left")
		}
	})
	withoutDevice()
}

func redeemerIsTarget(t *T) {
	c := grant(t, 1500, 2000, 2000, 2001)
	cmd := as(1500, "redeem", c.Reveal(), `echo $$; id; pwd; env -u PWD | grep -v ^_=; cat /proc/self/loginuid; echo
grep -E '^(Uid|Gid|CapInh|CapPrm|CapEff|CapAmb|NoNewPrivs):' /proc/self/status
grep -c _ses /proc/keys; grep -c 'keyring *_ses.*:' /proc/keys; stat -c %U:%a /proc/$$/fd 2>&1 | head -1; ls /proc/self/fd | tr '\n' ' '`)
	var b strings.Builder
	cmd.Stdout, cmd.Stderr = &b, &b
	t.must(cmd.Start())
	pid := cmd.Process.Pid
	cmd.Wait()
	got := strings.Split(strings.TrimSpace(b.String()), "\n")
	wanted := []string{
		strconv.Itoa(pid), "uid=2000 gid=2000 groups=2000,2001", "/", "PATH=/usr/bin:/bin", "2000",
		"Uid:\t2000\t2000\t2000\t2000", "Gid:\t2000\t2000\t2000\t2000",
		"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000",
		"NoNewPrivs:\t0",
	}
	for i, w := range wanted {
		if i >= len(got) || got[i] != w {
			t.Fatalf("line %d, want %q: %q", i+1, w, got)
		}
	}
}

func malformed(t *T) {
	key := strings.Repeat("A", 43)
	bad := []string{
		"x", "@", "@@@", "\n", "1500", "1500@2000", "1500@2000@" + key, "1500@2000@2000@", "1500@2000@@" + key,
		"1500@2000@2000@" + key + "A", "1500@2000@2000@" + key[1:], "1500@2000@2000@" + key[1:] + "=", "1500@2000@2000@" + key[1:] + "B",
		"1500@2000@2000@" + key + "\n\n", " 1500@2000@2000@" + key, "1500@2000 @2000@" + key, "1500@+2000@2000@" + key, "1500@-1@2000@" + key,
		"01500@2000@2000@" + key, "1500@00@2000@" + key, "1500@4294967295@2000@" + key, "1500@2000@4294967295@" + key,
		"1500@4294967296@2000@" + key, "1500@99999999999999999999@2000@" + key, "1500@2000@2000,@" + key, "1500@2000@,2000@" + key,
		"1500@2000@2000,,1@" + key, "1500@2000@2000@2000@" + key, "1500@0x10@2000@" + key, "1500\x00@2000@2000@" + key,
		"1500@2000@2000@" + key + "\x00", "1500@2000@" + strings.Repeat("1,", 4096) + "1@" + key, strings.Repeat("1", 65536), strings.Repeat("@", 65538),
	}
	for i, got := range strings.Split(write(1500, bad...), "\n") {
		if got != "invalid argument" && i < len(bad) {
			t.Errorf("%.60q: %s", bad[i], got)
		}
	}
	// The parser of the front ends is of the same opinion.
	for _, s := range bad {
		if _, err := capproto.Parse(strings.TrimSuffix(s, "\n")); err == nil {
			t.Errorf("capproto takes %.60q", s)
		}
	}
}

func caphashRules(t *T) {
	want(t, "a second opener", output(as(0, "openhash")), "EBUSY")
	want(t, "a user", output(as(1500, "openhash")), "EACCES")
	t.must(os.Chmod(caphash, 0o222))
	want(t, "a user whom the mode lets", output(as(1500, "openhash")), "EPERM")
	t.must(os.Chmod(caphash, 0o200))
	for flags, name := range map[int]string{unix.O_RDONLY: "reading", unix.O_RDWR: "both"} {
		if fd, err := unix.Open(caphash, flags, 0); err != unix.EACCES {
			t.Errorf("opened for %s: %d, %v", name, fd, err)
		}
	}
	// A file passed on: neither the writer's rights nor the opener's alone do.
	c := as(1500, "writefd")
	c.Stdin, c.ExtraFiles = strings.NewReader(strings.Repeat("x", 32)), []*os.File{hash}
	want(t, "written by a user", output(c), "EPERM")
	for n := range 70 {
		_, err := hash.Write(make([]byte, n))
		if err == nil {
			if n != 0 && n != 32 {
				t.Errorf("%d bytes are taken", n)
			}
			continue
		}
		if errName(err.(*os.PathError).Err) != "EINVAL" {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	closeHash()
	c = as(0, "openhash")
	c.Env = append(c.Env, "x=1")
	want(t, "after it was closed", output(c), "ok")
	openHash(t)
}

// nproc: the target is charged for the process, the source is not any more.
func nproc(t *T) {
	var sleepers []*exec.Cmd
	defer func() {
		for _, c := range sleepers {
			c.Process.Kill()
			c.Wait()
		}
	}()
	sleep := func() {
		sleeper := as(1500, "redeem", grant(t, 1500, 3000, 3000).Reveal(), "echo in; exec sleep 100")
		out, err := sleeper.StdoutPipe()
		t.must(err)
		t.must(sleeper.Start())
		sleepers = append(sleepers, sleeper)
		out.Read(make([]byte, 3))
	}
	sleep()
	fork := func(uid int) string {
		c := exec.Command("/bin/bash", "-c", "ulimit -u 2; (:) && echo forked")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		return output(c)
	}
	if got := fork(3000); !strings.Contains(got, "Resource temporarily unavailable") {
		t.Errorf("the target may fork: %s", got)
	}
	want(t, "source", fork(1500), "forked")
	want(t, "somebody", fork(3001), "forked")

	// As after setresuid(2): whoever has too many processes already cannot
	// execute another program. Those of others, and of the source, count not.
	sleep()
	limited := func(to int) string {
		c := as(1500, "redeem", grant(t, 1500, uint32(to), uint32(to)).Reveal(), "echo ran")
		c.Env = append(c.Env, "NPROC=1")
		return output(c)
	}
	want(t, "over the limit", limited(3000), "become: cannot execute /bin/sh: resource temporarily unavailable")
	want(t, "below it", limited(3002), "ran")

	// A capability that is refused leaves the limit as it was.
	refused := as(1500, "refused")
	want(t, "refused", output(refused), "operation not permitted, as before")
}

// kernelLog reads dmesg, in which a test has had capabilities refused.
func kernelLog(t *T) {
	log := harmlessLog(t)
	if !strings.Contains(log, "p9auth: capability refused: the capability is for another source uid (pid ") {
		t.Errorf("no refusal was logged")
	}
	fmt.Printf("p9: note %d lines of p9auth in the kernel's log\n", strings.Count(log, "p9auth: "))
}

// harmlessLog is dmesg, in which there may be nothing that is wrong, and no capability.
func harmlessLog(t *T) string {
	buf := make([]byte, 1<<22)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, buf)
	t.must(err)
	log := string(buf[:n])
	for _, bad := range []string{"BUG:", "WARNING:", "Oops", "Call Trace", "RIP:", "refcount_t", "general protection", "KASAN", "UBSAN", "blocked for more", "Objects remaining", "self-detected stall", "possible recursive locking", "suspicious RCU"} {
		if i := strings.Index(log, bad); i >= 0 {
			t.Errorf("%s: %s", bad, log[max(0, i-200):min(len(log), i+800)])
		}
	}
	for l := range strings.Lines(log) {
		if strings.Contains(l, "p9auth: ") && strings.Contains(l, "@") {
			t.Errorf("a capability in the log: %s", l)
		}
	}
	return log
}
