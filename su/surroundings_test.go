package main

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"p9auth/capproto"
	"p9auth/test/testbed"
)

// TestWhateverACallerRunsSuWithTheyAreBobOrNobody: by the right password they may
// become bob, by a wrong one nobody, and factotum goes on.
func TestWhateverACallerRunsSuWithTheyAreBobOrNobody(t *testing.T) {
	t.Parallel()
	b := up(t)
	const became = "I am bob by 1000 4 2"
	works := 0
	for name, script := range map[string]string{
		"no file may grow":              "ulimit -f 0; exec %s",
		"hardly any memory":             "ulimit -v 500000; exec %s",
		"little memory":                 "ulimit -v 1000000; exec %s",
		"a small stack":                 "ulimit -s 256; exec %s",
		"hardly a descriptor":           "ulimit -n 4; exec %s",
		"few descriptors":               "ulimit -n 12; exec %s",
		"no time":                       "ulimit -t 0; exec %s",
		"no process":                    "ulimit -u 1; exec %s",
		"no pending signal":             "ulimit -i 0; exec %s",
		"no mode":                       "umask 777; exec %s",
		"a directory that is gone":      "d=$(mktemp -d); cd $d; rmdir $d; exec %s",
		"signals ignored":               "trap '' HUP INT QUIT PIPE TERM CHLD XFSZ XCPU CONT; exec %s",
		"no standard input":             "exec %s <&-",
		"no standard output":            "exec %s >&-",
		"no standard error":             "exec %s 2>&-",
		"no standard descriptor":        "exec %s <&- >&- 2>&-",
		"as many descriptors as it can": "for i in $(seq 3 900); do eval \"exec $i</etc/hostname\"; done; exec %s",
		"a name that is none":           "exec -a '' %s",
		"an empty environment":          "exec env -i %s",
		"a large environment":           "export A=$(head -c 120000 /dev/zero | tr '\\0' x) B=$(head -c 120000 /dev/zero | tr '\\0' x) C=$(head -c 120000 /dev/zero | tr '\\0' y); exec %s",
		"the linker's variables":        "export LD_PRELOAD=/tmp/x.so LD_AUDIT=/tmp/x.so LD_LIBRARY_PATH=/tmp GCONV_PATH=/tmp LOCPATH=/tmp BASH_ENV=/tmp/x ENV=/tmp/x IFS=m GODEBUG=x GOTRACEBACK=crash GOMEMLIMIT=1; exec %s",
		"the least priority":            "exec nice -n 19 %s",
	} {
		tries := []string{testbed.Password}
		if name == "signals ignored" || name == "the linker's variables" {
			tries = append(tries, "wrong") // which takes seconds
		}
		for _, typed := range tries {
			command := fmt.Sprintf("timeout -s KILL 20 bash -c '"+strings.ReplaceAll(strings.ReplaceAll(script, "'", `'\''`), "%s", "%[1]s")+"'", b.Bin("su")+` -s /bin/sh -c "echo I am \$(id -un) by \$((500 * 2)) \$((2 + 2)) \$((1 + 1))" bob`)
			cmd := b.Command(testbed.AsPerson("alice", "bash", "-c", command)...)
			cmd.Stdin = strings.NewReader(typed + "\n")
			out, err := cmd.CombinedOutput()
			is := strings.Contains(string(out), became)
			if is {
				works++
			}
			if is && typed == "wrong" || strings.Contains(string(out), "I am ") && !is || !is && err == nil && typed == "wrong" {
				t.Errorf("%s, %s: %v: %s", name, typed, err, out)
			}
			if typed != "wrong" {
				t.Logf("%s: %v: %.200s", name, err, out)
			}
		}
	}
	if works < 12 {
		t.Errorf("su works in %d of these surroundings", works)
	}
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum-pam")) == 0 }) {
		t.Error("a worker is left")
	}
	if n := b.Logged("panic"); n > 0 {
		t.Error("factotum has failed")
	}
}

// TestAKilledSuLeavesNothing, at whatever moment its caller kills it.
func TestAKilledSuLeavesNothing(t *testing.T) {
	t.Parallel()
	b := up(t)
	for delay := 0; delay <= 100; delay += 10 {
		script := fmt.Sprintf(`echo %s | %s -c 'sleep 0.2' bob & sleep 0.%03d; kill -STOP $!; kill -KILL $!; wait`, testbed.Password, b.Bin("su"), delay)
		b.Command(testbed.AsPerson("alice", "bash", "-c", script)...).Run()
	}
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum-pam")) == 0 && b.Sh(t, "pgrep -u bob -x sleep || true") == "" }) {
		t.Errorf("left: %v", b.Processes())
	}
	// A session may be closed before factotum has heard that it was opened.
	if got, want := b.Logged("session closed"), b.Logged("session opened"); got < want {
		t.Errorf("%d sessions were opened, %d closed", want, got)
	}
	cmd := b.Command(testbed.AsPerson("alice", b.Bin("su"), "-c", "id -un", "bob")...)
	cmd.Stdin = strings.NewReader(testbed.Password + "\n")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "bob") {
		t.Errorf("and then: %v: %s", err, out)
	}
}

// guessMany has as many conversations guess, again and again, for some seconds. It prints
// how many guesses were judged.
func guessMany(args []string) {
	n, _ := strconv.Atoi(args[0])
	seconds, _ := strconv.Atoi(args[1])
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	var judged atomic.Int32
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for time.Now().Before(end) {
				c, err := begin("bob")
				if err == nil {
					err = c.Converse(func(capproto.Prompt) (string, error) { return "wrong", nil })
				}
				if capproto.CodeOf(err) == capproto.CodeDenied && time.Now().Before(end) {
					judged.Add(1)
				}
				if c != nil {
					c.Close()
				}
			}
		})
	}
	fmt.Println("guessing")
	time.Sleep(time.Until(end))
	fmt.Println(judged.Load())
}

// TestAThousandConversationsGetNoMoreGuesses than one, and others do not wait for them.
func TestAThousandConversationsGetNoMoreGuesses(t *testing.T) {
	b := up(t)
	const seconds = 4
	cmd := b.Command(testbed.AsPerson("alice", b.Self(t), "guess-many", "1000", fmt.Sprint(seconds))...)
	var out testbed.Log
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !testbed.Eventually(func() bool { return strings.Contains(out.String(), "guessing") }) {
		t.Fatalf("it does not guess: %s", out.String())
	}
	for who, argv := range map[string][]string{
		"bob, who calls su": testbed.AsPerson("bob", b.Bin("su"), "alice"),
		"bob at a console":  testbed.As("_login", b.Bin("login"), "bob"),
	} {
		start := time.Now()
		term := b.Start(t, argv...)
		term.Expect("Password: ")
		term.Send(testbed.Password + "\n")
		term.Expect(`\$ $`)
		if took := time.Since(start); took > time.Second {
			t.Errorf("%s is let in after %v", who, took)
		}
		term.Send("exit\n")
		term.Wait()
	}
	cmd.Wait()
	lines := strings.Fields(out.String())
	judged, err := strconv.Atoi(lines[len(lines)-1])
	// Each takes FAIL_DELAY, 1 s, and what PAM waits.
	if err != nil || judged > seconds {
		t.Errorf("%d guesses were judged in %d s: %s", judged, seconds, out.String())
	}
	if !testbed.Eventually(func() bool { return b.Logged("code=denied") > 0 }) {
		t.Error("nothing was judged")
	}
	if n := b.Logged("code=denied"); n > seconds+1 {
		t.Errorf("the log has %d", n)
	}
}
