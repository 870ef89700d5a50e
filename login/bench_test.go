package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/capuse"
	"p9auth/test/testbed"
)

const redeemEnv = "P9AUTH_BENCH_REDEEM"

// TestRedeemHelper is no test: it logs bob in, whose shell does nothing, prints
// the time, and becomes that shell, for BenchmarkRedeem.
func TestRedeemHelper(t *testing.T) {
	if os.Getenv(redeemEnv) == "" {
		t.Skip("is run by BenchmarkRedeem")
	}
	c, err := capproto.Dial("/run/factotum/rpc")
	if err != nil {
		t.Fatal(err)
	}
	answer := func(capproto.Prompt) (string, error) { return password, nil }
	for _, step := range []func() error{
		func() error { _, err := c.Start(capproto.Start{User: "bob"}); return err },
		func() error { return c.Converse(answer) },
		c.Session,
		func() error { return c.Converse(answer) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Printf("asks %d\n", monotonic())
	info, err := c.AuthInfo()
	if err != nil {
		t.Fatal(err)
	}
	t.Fatal(capuse.Exec(capuse.DefaultPath, info.Cap, capuse.Target{Path: "/bin/true", Argv: []string{"-true"}, Dir: "/"}))
}

func monotonic() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// BenchmarkRedeem is the time from authinfo to the end of /bin/true, beside
// that of "su -c true" and "sudo -u", which root runs without a password. It
// reports medians, and what factotum and a worker take of memory.
func BenchmarkRedeem(b *testing.B) {
	bed := testbed.Up(b)
	bed.Sh(b, "usermod -s /bin/true bob")
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		b.Fatal(err)
	}
	helper := filepath.Join(bed.Dir, "redeem")
	if err := os.WriteFile(helper, program, 0o755); err != nil {
		b.Fatal(err)
	}
	median := func(d []float64) float64 { slices.Sort(d); return d[len(d)/2] }
	var ours, su, sudo []float64
	_, noSudo := os.Stat("/usr/bin/sudo")
	for b.Loop() {
		cmd := bed.Command(testbed.As("_login", helper, "-test.run=^TestRedeemHelper$")...)
		cmd.Env = append(os.Environ(), redeemEnv+"=1")
		out, err := cmd.CombinedOutput()
		end := monotonic()
		from, ok := strings.CutPrefix(strings.TrimSpace(string(out)), "asks ")
		start, convErr := strconv.ParseInt(from, 10, 64)
		if err != nil || !ok || convErr != nil {
			b.Fatalf("%v: %s", err, out)
		}
		ours = append(ours, float64(end-start)/1e6)
		t := time.Now()
		if out, err := bed.Command("su", "alice", "-c", "true").CombinedOutput(); err != nil {
			b.Fatalf("su: %v: %s", err, out)
		}
		su = append(su, float64(time.Since(t))/1e6)
		if noSudo == nil {
			t = time.Now()
			if out, err := bed.Command("sudo", "-n", "-u", "alice", "true").CombinedOutput(); err != nil {
				b.Fatalf("sudo: %v: %s", err, out)
			}
			sudo = append(sudo, float64(time.Since(t))/1e6)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(ours), "redeem-ms")
	b.ReportMetric(median(su), "su-ms")
	if len(sudo) > 0 {
		b.ReportMetric(median(sudo), "sudo-ms")
	}
	term := bed.Start(b, testbed.As("_login", bed.Bin("login"), "alice")...)
	term.Expect("Password: ")
	term.Send(password + "\n")
	term.Expect(`\$ `)
	for _, name := range []string{"factotum", "factotum-pam"} {
		for _, pid := range bed.Pids(name) {
			status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			_, rss, _ := strings.Cut(string(status), "VmRSS:")
			kib, _ := strconv.Atoi(strings.Fields(rss + " 0")[0])
			b.ReportMetric(float64(kib)/1024, name+"-MiB")
		}
	}
}
