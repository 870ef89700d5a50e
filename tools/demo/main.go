// Demo shows p9auth at work to a person: it brings up a testbed
// (scripts/testbed), logs alice in through agetty and login, and then with ssh
// through sshfront, none of which has any right, and shows who has rights
// meanwhile.
//
// It runs as root, for the testbed's sake, and takes everything down again,
// whatever happens. Where standard input is a terminal, it hands the terminal
// to the person; otherwise it types name and password itself and prints what
// a person would see. It fails if the login did not work as promised.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

const usage = `usage: scripts/demo
  with a terminal on standard input and output, you log in; without, the demo
  does
`

const (
	user     = "alice"
	password = "open-sesame"
)

// A step is a part of the demo: a way to log in.
type step struct {
	title string
	run   func(context.Context, *bed) error
}

// steps are run in order.
var steps = []step{
	{"the console: agetty and login, as user _login", console},
	{"ssh, with a key: sshfront, as user _sshfront", sshKey},
	{"ssh, with a password", sshPassword},
}

func main() {
	if len(os.Args) > 1 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	// A closed pipe is no reason to leave things behind either.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	if err := demo(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
	say("it worked, and everything is taken down again")
}

// demo runs the steps in a testbed of their own.
func demo(ctx context.Context) (err error) {
	if os.Getuid() != 0 {
		return errors.New("the testbed needs root")
	}
	b, err := up()
	defer func() { err = errors.Join(err, b.down()) }()
	if err != nil {
		return err
	}
	for _, s := range steps {
		say("%s", s.title)
		err := s.run(ctx, b)
		say("what factotum logged")
		for _, line := range b.news() {
			fmt.Println(line)
		}
		fmt.Println()
		if err != nil {
			return err
		}
	}
	return nil
}

// say says something that is no part of what a terminal shows.
func say(format string, args ...any) {
	fmt.Printf("# "+format+"\n\n", args...)
}

// A bed is a running testbed.
type bed struct {
	dir    string // its files
	script string // scripts/testbed
	bin    string // our programs
	ns     string // what /proc calls its mount namespace
	told   int    // lines of the log that were shown
}

// up starts a testbed. What it returns is to be taken down in any case.
func up() (*bed, error) {
	b := &bed{}
	top, err := os.Getwd()
	if err != nil {
		return b, err
	}
	b.script, b.bin = filepath.Join(top, "scripts/testbed"), filepath.Join(top, "bin")
	if _, err := os.Stat(b.script); err != nil {
		return b, fmt.Errorf("run scripts/demo, from the source tree: %w", err)
	}
	if b.dir, err = os.MkdirTemp("", "p9auth-demo"); err != nil {
		return b, err
	}
	if err := b.testbed("up"); err != nil {
		return b, err
	}
	ns, err := os.ReadFile(filepath.Join(b.dir, "ns"))
	b.ns = strings.TrimSpace(string(ns))
	return b, err
}

// down stops and removes everything.
func (b *bed) down() error {
	if b.dir == "" {
		return nil
	}
	return b.testbed("down")
}

// testbed runs scripts/testbed, out of reach of what the person at the
// terminal may press.
func (b *bed) testbed(verb string) error {
	cmd := exec.Command(b.script, verb, b.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("testbed %s: %w: %s", verb, err, out)
	}
	return nil
}

// command is a command that runs as root inside the testbed. Each program in
// its way executes the next, so that it keeps the pid.
func (b *bed) command(argv ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"--mount=/proc/" + b.pid() + "/ns/mnt", "--"}, argv...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	return cmd
}

func (b *bed) pid() string {
	pid, _ := os.ReadFile(filepath.Join(b.dir, "pid"))
	return strings.TrimSpace(string(pid))
}

// log is what factotum has logged so far, without the times.
func (b *bed) log() []string {
	text, _ := os.ReadFile(filepath.Join(b.dir, "log", "factotum"))
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "time=") {
			_, line, _ = strings.Cut(line, " ")
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

// news are the lines of the log that were not shown yet.
func (b *bed) news() []string {
	lines := b.log()
	n := min(b.told, len(lines))
	b.told = len(lines)
	return lines[n:]
}

// count is how often factotum's log has the text.
func (b *bed) count(text string) int { return strings.Count(strings.Join(b.log(), "\n"), text) }

// awaitClose waits until all sessions that were opened are closed.
func (b *bed) awaitClose() error {
	for end := time.Now().Add(patience); b.count("session closed") < b.count("session opened"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("the session was not closed")
		}
	}
	return nil
}

func interactive() bool { return term.IsTerminal(0) && term.IsTerminal(1) }
