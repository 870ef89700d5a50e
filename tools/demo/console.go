package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// console logs alice in as at a console. agetty is started as the user _login
// with no capability, and so are all that it executes.
func console(ctx context.Context, b *bed) error {
	termType := "dumb" // so that no program decorates the transcript
	if interactive() {
		if v := os.Getenv("TERM"); v != "" {
			termType = v
		}
	}
	t, err := start(b.command(
		"setpriv", "--reuid=_login", "--regid=_login", "--clear-groups", "--inh-caps=-all", "--ambient-caps=-all", "--",
		"/sbin/agetty", "--noclear", "--login-program", b.bin+"/login", "-", termType))
	if err != nil {
		return err
	}
	defer t.close()
	if interactive() {
		say("You are at the console of a private testbed: log in as %s with the password %s.\n"+
			"# Look around (id; tty; echo $$; ps -ef), then log out. Ctrl-] leaves at any time.", user, password)
		return handOver(ctx, b, t)
	}
	return byItself(ctx, b, t)
}

// handOver gives the terminal to the person.
func handOver(ctx context.Context, b *bed, t *terminal) error {
	before := b.count("session opened")
	err := t.attach(ctx)
	fmt.Println()
	if err != nil {
		return err
	}
	if b.count("session opened") == before {
		return errors.New("nobody logged in")
	}
	return b.awaitClose()
}

// byItself plays the person, and checks what it sees.
func byItself(ctx context.Context, b *bed, t *terminal) error {
	t.echo = os.Stdout
	if _, err := t.expect(ctx, "login: "); err != nil {
		return err
	}
	t.send(user + "\n")
	if _, err := t.expect(ctx, "Password: "); err != nil {
		return err
	}
	if err := b.showRights("who has rights while the password is asked for", t); err != nil {
		return err
	}
	t.send(password + "\n")
	if err := lookAround(ctx, t, []look{
		{"id", "(" + user + ") "},
		{"tty", t.name},
		{"echo $$", strconv.Itoa(t.pid())},
		{"grep Cap /proc/self/status", "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"},
		{"cat /etc/shadow", "Permission denied"},
	}); err != nil {
		return err
	}
	if err := b.showRights("who has rights while "+user+" is logged in", t); err != nil {
		return err
	}
	t.send("exit\n")
	if err := t.drain(ctx); err != nil {
		return err
	}
	fmt.Println()
	return b.awaitClose()
}

// A look is a command and what it must show.
type look struct{ command, want string }

// lookAround types commands at a shell.
func lookAround(ctx context.Context, t *terminal, looks []look) error {
	const prompt = "$ "
	if _, err := t.expect(ctx, prompt); err != nil {
		return err
	}
	for _, c := range looks {
		t.send(c.command + "\n")
		got, err := t.expect(ctx, prompt)
		if err != nil {
			return err
		}
		if !strings.Contains(got, c.want) {
			return fmt.Errorf("%s should have shown %q", c.command, c.want)
		}
	}
	return nil
}
