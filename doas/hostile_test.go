package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"p9auth/capproto"
	"p9auth/internal/capuse"
	"p9auth/test/testbed"
)

// The caller is hostile here: the program that speaks to factotum is alice's own.

func TestMain(m *testing.M) {
	testbed.Main(m, testbed.Programs{"ask": ask, "leave": leave, "speak": speak})
}

// nobody answers no question.
func nobody(capproto.Prompt) (string, error) { return "", nil }

// started is a conversation as root, in which a command is said.
func started(r capproto.Run) *capproto.Client {
	c, err := capproto.Dial(testbed.RPC)
	if err == nil {
		_, err = c.StartDoas("root", nil)
	}
	if err == nil {
		err = c.Run(r)
	}
	fail(err)
	return c
}

// permitted is one that a rule with nopass permits, up to the open session.
func permitted(r capproto.Run) *capproto.Client {
	c := started(r)
	_, err := c.Permit()
	if err == nil {
		err = c.Converse(nobody)
	}
	if err == nil {
		err = c.Session()
	}
	if err == nil {
		err = c.Converse(nobody)
	}
	fail(err)
	return c
}

func fail(err error) {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// ask does what must not work, one of several, and prints how it was answered.
func ask(args []string) {
	id := capproto.Run{Args: []string{"id"}, Path: "/usr/bin/id"}
	var err error
	switch args[0] {
	case "nothing said":
		c, derr := capproto.Dial(testbed.RPC)
		fail(derr)
		_, derr = c.StartDoas("root", nil)
		fail(derr)
		_, err = c.Permit()
	case "session before permit":
		err = started(id).Session()
	case "permit twice":
		c := started(id)
		_, perr := c.Permit()
		fail(perr)
		_, err = c.Permit()
	case "another command after permit":
		c := started(id)
		_, perr := c.Permit()
		fail(perr)
		err = c.Run(capproto.Run{Args: []string{"sh"}})
	case "another argument in the open session":
		err = permitted(id).Run(capproto.Run{Args: []string{"-x"}})
	case "session without the proof":
		c := started(capproto.Run{Args: []string{"sh"}, Path: "/bin/sh"})
		_, perr := c.Permit()
		fail(perr)
		err = c.Session()
	case "an answer before the question":
		c := started(capproto.Run{Args: []string{"sh"}, Path: "/bin/sh"})
		_, perr := c.Permit()
		fail(perr)
		err = c.Converse(func(capproto.Prompt) (string, error) { return "wrong", nil })
	case "the path of another program":
		_, err = permitted(capproto.Run{Args: []string{"/usr/bin/true"}, Path: "/tmp/evil"}).AuthInfo()
		if err == nil {
			fmt.Println("it is the one that was named")
			return
		}
	case "a path for another name":
		_, err = permitted(capproto.Run{Args: []string{"true"}, Path: "/tmp/evil"}).AuthInfo()
	case "a path that is not absolute":
		_, err = permitted(capproto.Run{Args: []string{"true"}, Path: "tmp/true"}).AuthInfo()
	case "where a named program is":
		r := id
		r.Path = "/tmp/id"
		a, aerr := permitted(r).AuthInfo()
		fail(aerr)
		fmt.Println("runs", a.Runs)
		return
	case "a relative path that a rule names":
		_, err = permitted(capproto.Run{Args: []string{"bin/tool"}, Path: "/tmp/bin/tool"}).AuthInfo()
	case "a long name":
		_, err = permitted(capproto.Run{Args: []string{"/" + strings.Repeat("x", 300<<10)}, Dir: strings.Repeat("y", 8<<10)}).AuthInfo()
	case "redeem":
		a, aerr := permitted(id).AuthInfo()
		fail(aerr)
		err = capuse.Redeem(capuse.DefaultPath, a.Cap)
	case "too much":
		err = started(id).Run(capproto.Run{Args: []string{strings.Repeat("x", 600<<10)}})
	case "su":
		c, derr := capproto.Dial(testbed.RPC)
		fail(derr)
		err = c.StartSu("root", false, nil)
	case "config changes":
		c := started(capproto.Run{Args: []string{"sh"}, Path: "/bin/sh"})
		fmt.Println("said")
		fmt.Scanln()
		_, err = c.Permit()
	}
	fmt.Println("error:", err)
}

func TestWhatACallerMustNotAskIsRefused(t *testing.T) {
	b := up(t, "permit nopass alice cmd id\npermit alice cmd sh\npermit nopass alice cmd /usr/bin/true\npermit nopass alice cmd bin/tool\npermit nopass bob\n")
	for _, c := range []struct{ user, what, want string }{
		{"alice", "nothing said", "permit before run"},
		{"alice", "session before permit", "session in state asking"},
		{"alice", "permit twice", "permit in state talking"},
		{"alice", "another command after permit", "run in state talking"},
		{"alice", "another argument in the open session", "run in state open"},
		{"alice", "session without the proof", "session in state talking"},
		{"alice", "an answer before the question", "Authentication failure"},
		{"alice", "the path of another program", "it is the one that was named"},
		{"bob", "a path for another name", "for another command"},
		{"bob", "a path that is not absolute", "for another command"},
		{"alice", "where a named program is", "runs /bin/id"},
		{"alice", "a relative path that a rule names", "cannot permit a path that is relative"},
		{"alice", "too much", "too large"},
		{"bob", "a long name", "File name too long"},
		{"alice", "redeem", "uid=0(root)"}, // which is what the rule permits
		{"alice", "su", "su is not configured"},
	} {
		out, _ := b.Command(testbed.AsPerson(c.user, b.Self(t), "ask", c.what)...).CombinedOutput()
		if !strings.Contains(string(out), c.want) || len(out) > 1000 {
			t.Errorf("%s: %s, want %s", c.what, out, c.want)
		}
	}
}

func TestTheRulesCountThatAreThereWhenTheyAreAsked(t *testing.T) {
	b := up(t, "permit nopass alice\n")
	cmd := b.Command(testbed.AsPerson("alice", b.Self(t), "ask", "config changes")...)
	in, out := testbed.Pipes(t, cmd)
	var word string
	fmt.Fscanln(out, &word)
	write(t, b, "permit nopass alice\ndeny alice cmd sh\n")
	fmt.Fprintln(in)
	rest := make([]byte, 200)
	n, _ := out.Read(rest)
	cmd.Wait()
	if word != "said" || !strings.Contains(string(rest[:n]), "Operation not permitted") {
		t.Errorf("%s: %s", word, rest[:n])
	}
	b.WantLog(t, `command not permitted.*caller=alice user=root reason="Operation not permitted" command=sh`)
}

func TestAFileOfRulesThatIsNotRootsCountsForNothing(t *testing.T) {
	b := up(t, "")
	for what, script := range map[string]string{
		"a link to a user's file": "printf 'permit nopass alice\n' >/home/alice/rules; chown alice /home/alice/rules; ln -s /home/alice/rules /etc/doas.conf",
		"a directory":             "mkdir /etc/doas.conf",
		"a FIFO":                  "mkfifo /etc/doas.conf",
		"a large file":            "{ head -c 70000 /dev/zero | tr '\\0' '\\n'; echo permit nopass alice; } >/etc/doas.conf",
	} {
		b.Sh(t, "rm -rf /etc/doas.conf; "+script)
		out, err := b.Command(testbed.AsPerson("alice", b.Bin("doas"), "id")...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "doas: /etc/doas.conf") {
			t.Errorf("%s: %v: %s", what, err, out)
		}
	}
	b.Sh(t, "rm -rf /etc/doas.conf")
}

func TestAProofThatPersistsIsOfOneUserSessionAndTerminal(t *testing.T) {
	b := up(t, "permit persist alice\npermit persist bob\n")
	doas := b.Bin("doas")
	// A shell of root's, so that two users can be in one session.
	term := b.Start(t, "/bin/sh")
	term.Send("PS1='> '\n")
	try := func(user string) string {
		return term.Run(strings.Join(testbed.AsPerson(user, doas, "-n", "id", "-u"), " ") + " 2>&1")
	}
	const no = "Authentication required"
	if out := try("alice"); !strings.Contains(out, no) {
		t.Fatalf("before a proof: %s", out)
	}
	term.Send(strings.Join(testbed.AsPerson("alice", doas, "echo", "it-is-done"), " ") + "\n")
	term.Expect("password: ")
	term.Send(testbed.Password + "\n")
	term.Expect("it-is-done")
	if out := try("alice"); strings.Contains(out, no) || !strings.Contains(out, "0") {
		t.Errorf("after a proof: %s", out)
	}
	if out := try("bob"); !strings.Contains(out, no) {
		t.Errorf("bob has alice's ticket: %s", out)
	}
	if out := term.Run("setsid -w " + strings.Join(testbed.AsPerson("alice", doas, "-n", "id", "-u"), " ") + " 2>&1"); !strings.Contains(out, no) {
		t.Errorf("another session has the ticket: %s", out)
	}
	if out := term.Run("script -qc '" + strings.Join(testbed.AsPerson("alice", doas, "-n", "id", "-u"), " ") + "' /dev/null 2>&1"); !strings.Contains(out, no) {
		t.Errorf("another terminal has the ticket: %s", out)
	}
	// Rules without persist do not look at it.
	write(t, b, "permit alice\n")
	if out := try("alice"); !strings.Contains(out, no) {
		t.Errorf("a rule without persist: %s", out)
	}
	write(t, b, "permit persist alice\n")
	if out := try("alice"); strings.Contains(out, no) {
		t.Errorf("the ticket is gone: %s", out)
	}
	// The account counts all the same.
	b.Sh(t, "usermod -e 1 alice")
	if out := try("alice"); !strings.Contains(out, "expired") {
		t.Errorf("with an account that has expired: %s", out)
	}
	b.Sh(t, "usermod -e '' alice")
	if out := term.Run(strings.Join(testbed.AsPerson("alice", doas, "-L"), " ")); strings.Contains(out, "doas:") {
		t.Errorf("-L: %s", out)
	}
	if out := try("alice"); !strings.Contains(out, no) {
		t.Errorf("after -L: %s", out)
	}
}

func TestWhoCannotBecomeAnybodyIsToldWhy(t *testing.T) {
	b := up(t, "permit nopass alice\npermit bob\n")
	for want, argv := range map[string][]string{
		"no_new_privs":             append([]string{"setpriv", "--no-new-privs"}, testbed.AsPerson("alice", b.Bin("doas"), "id")...),
		"a tty is required":        append([]string{"setsid", "-w"}, testbed.AsPerson("bob", b.Bin("doas"), "id")...),
		"no authentication styles": testbed.AsPerson("alice", b.Bin("doas"), "-a", "skey", "id"),
	} {
		out, err := b.Command(argv...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%v: %s, want %s", err, out, want)
		}
	}
}

func TestNobodyRunsAnythingUntilDoasIsConfigured(t *testing.T) {
	b := testbed.Up(t)
	write(t, b, "permit nopass alice\n")
	out, err := b.Command(testbed.AsPerson("alice", b.Bin("doas"), "id")...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not configured") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestANamespaceOfTheCallersOwnGivesNothing, neither another program in the place of the
// one that a rule names, nor other ids.
func TestANamespaceOfTheCallersOwnGivesNothing(t *testing.T) {
	b := up(t, "permit nopass alice cmd id\npermit nopass alice as bob cmd id\n")
	b.Sh(t, "printf '#!/bin/sh\\necho it is mine\\n' >/home/alice/id; chmod 755 /home/alice/id")
	for _, c := range []struct{ flags, before string }{
		{"-U", ""}, {"-Ur", ""}, {"-Urp --fork", ""}, {"-Urm", "mount --bind /home/alice/id /bin/id; mount --bind /home/alice/id /usr/bin/id;"},
	} {
		for _, user := range []string{"root", "bob"} {
			script := c.before + " exec " + b.Bin("doas") + " -u " + user + " id"
			out, err := b.Command(testbed.AsPerson("alice", append(append([]string{"unshare"}, strings.Fields(c.flags)...), "sh", "-c", script)...)...).CombinedOutput()
			if err == nil || strings.Contains(string(out), "uid=") || strings.Contains(string(out), "it is mine") {
				t.Errorf("unshare %s, %s: %v: %s", c.flags, user, err, out)
			}
			// Her own program has no such line, and gets no more.
			if !strings.Contains(string(out), "user namespace of its own") {
				t.Errorf("unshare %s, %s: %s", c.flags, user, out)
			}
			out, err = b.Command(testbed.AsPerson("alice", append(append([]string{"unshare"}, strings.Fields(c.flags)...), "sh", "-c", c.before+" exec "+b.Self(t)+" ask 'redeem'")...)...).CombinedOutput()
			if strings.Contains(string(out), "uid=") || strings.Contains(string(out), "it is mine") {
				t.Errorf("unshare %s, without doas: %v: %s", c.flags, err, out)
			}
		}
	}
}

// TestWhateverACallerRunsDoasWithTheCommandIsThePermittedOne or none.
func TestWhateverACallerRunsDoasWithTheCommandIsThePermittedOne(t *testing.T) {
	b := up(t, "permit nopass keepenv alice cmd id args -u\n")
	b.Sh(t, "mkdir -m 755 /tmp/evil; printf '#!/bin/sh\\necho it is mine\\n' >/tmp/evil/id; chmod 755 /tmp/evil/id")
	t.Cleanup(func() { b.Sh(t, "rm -rf /tmp/evil") })
	works := 0
	for name, script := range map[string]string{
		"no file may grow":         "ulimit -f 0; exec %s",
		"a small stack":            "ulimit -s 256; exec %s",
		"hardly a descriptor":      "ulimit -n 4; exec %s",
		"no time":                  "ulimit -t 0; exec %s",
		"no process":               "ulimit -u 1; exec %s",
		"no mode":                  "umask 777; exec %s",
		"a directory that is gone": "d=$(mktemp -d); cd $d; rmdir $d; exec %s",
		"signals ignored":          "trap '' HUP INT QUIT PIPE TERM CHLD XFSZ XCPU; exec %s",
		"no standard descriptor":   "exec %s <&- >&- 2>&-",
		"a name that is none":      "exec -a '' %s",
		"an empty environment":     "exec env -i %s",
		"the linker's variables":   "export LD_PRELOAD=/tmp/x.so LD_AUDIT=/tmp/x.so BASH_ENV=/tmp/x ENV=/tmp/x GODEBUG=x GOTRACEBACK=crash; exec %s",
		"a path of its own":        "export PATH=/tmp/evil; hash -r; exec %s",
		"a directory of its own":   "cd /tmp/evil; export PATH=:; exec %s",
	} {
		cmd := b.Command(testbed.AsPerson("alice", "/bin/bash", "-c", "exec 2>&1; "+fmt.Sprintf(script, b.Bin("doas")+" id -u"))...)
		out, err := cmd.CombinedOutput()
		switch s := strings.TrimSpace(string(out)); {
		case err == nil && s == "0":
			works++
		case err == nil && s != "" || strings.Contains(s, "it is mine"):
			t.Errorf("%s: %v: %s", name, err, s)
		}
	}
	if works < 8 {
		t.Errorf("doas works in %d of these surroundings", works)
	}
}
