package proc

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func TestStatusOfOurselves(t *testing.T) {
	st, err := ReadStatus(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if st.PID != os.Getpid() || int(st.UID) != os.Getuid() || int(st.EUID) != os.Geteuid() || st.Tracer != 0 {
		t.Errorf("%+v", st)
	}
}

func TestStatOfAProgramWithAnOddName(t *testing.T) {
	st, err := parseStat("7 (a) (b c) S 1 7 9 34816 7 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 999 0\n")
	if err != nil || st != (Stat{Session: 9, TTY: 34816, Start: 12345}) {
		t.Errorf("%+v, %v", st, err)
	}
	for _, s := range []string{"", "7 (x", "7 (x) S 1 2 3", "7 (x) S 1 2 x 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"} {
		if _, err := parseStat(s); err == nil {
			t.Errorf("%q is a stat", s)
		}
	}
}

func TestHandleKnowsWhenTheProcessEnds(t *testing.T) {
	c := exec.Command("sleep", "100")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	h, err := Open(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if !h.Alive() {
		t.Error("dead before it was killed")
	}
	c.Process.Kill()
	c.Wait()
	if h.Alive() {
		t.Error("alive after it was killed")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("7 (a) S 1 7 9 34816 7 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 999 0\n")
	f.Add("Tgid:\t1\nTracerPid:\t0\nUid:\t0\t0\t0\t0\nNoNewPrivs:\t0\nCapPrm:\t0\nCapEff:\t0\nCapBnd:\t1\n")
	f.Fuzz(func(t *testing.T, s string) {
		parseStat(s)
		parseStatus(s)
	})
}

func TestAClosedHandleIsOfNoLivingProcess(t *testing.T) {
	h, err := Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !h.Alive() {
		t.Error("this process is dead")
	}
	h.Close()
	if h.Alive() {
		t.Error("a closed handle says that the process lives")
	}
}

func TestLimitsOfOurselves(t *testing.T) {
	var want unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_STACK, &want); err != nil {
		t.Fatal(err)
	}
	limits, err := ReadLimits(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	soft, hard, err := limits.Limit("Max stack size")
	if err != nil || soft != want.Cur || hard != want.Max {
		t.Errorf("%d, %d, %v; want %+v", soft, hard, err, want)
	}
	if _, _, err := limits.Limit("Max"); err == nil {
		t.Error("a limit of nothing")
	}
}
