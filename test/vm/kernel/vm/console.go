package main

import (
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"
)

// A person sits at the guest's second serial port.
type person struct {
	c    net.Conn
	seen string // of the screen, and not expected yet
}

// console is the person's whole visit, to a terminal of this name in the guest. It returns what they found wrong.
func console(sock, tty string) error {
	c, err := net.Dial("unix", sock)
	if err != nil {
		return err
	}
	defer c.Close()
	p := &person{c: c}
	for _, step := range []struct{ expect, send string }{
		{`login: $`, "alice"},
		{`Password: $`, password},
		{`\$ $`, "PS1='$ '"},
		{`\$ $`, ""},
	} {
		if _, err := p.expect(step.expect); err != nil {
			return err
		}
		if step.send != "" {
			p.send(step.send)
		}
	}
	for _, q := range []struct{ command, want string }{
		{"id", "uid=1000(alice) gid=1000(alice) groups=1000(alice),1100(wizards)"},
		{"tty; stat -c '%U %G %a' $(tty)", "/dev/" + tty + "\nalice tty 600"},
		{"grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/$$/status | tr -d '\\n\\t'", "CapInh:0000000000000000CapPrm:0000000000000000CapEff:0000000000000000CapAmb:0000000000000000"},
		{"cat /proc/self/loginuid; echo", "1000"},
		{"ulimit -Su; ulimit -Hu", "40\n40"},
		{"echo $0 $HOME $USER $PWD", "-bash /home/alice alice /home/alice"},
		{"cat /etc/shadow", "cat: /etc/shadow: Permission denied"},
	} {
		p.send("echo 'BEG''IN'; " + q.command + "; echo 'E''ND'")
		out, err := p.expect(`(?s)BEGIN\r\n.*?END\r\n`)
		if err != nil {
			return err
		}
		out = strings.TrimSuffix(strings.TrimPrefix(out, "BEGIN\r\n"), "END\r\n")
		if out = strings.TrimSpace(strings.ReplaceAll(out, "\r\n", "\n")); out != q.want {
			return fmt.Errorf("%s: got %q, want %q", q.command, out, q.want)
		}
	}
	p.send("exit")
	return nil
}

func (p *person) send(line string) { fmt.Fprintf(p.c, "%s\r", line) }

// expect waits up to a minute for the screen to show something that matches.
func (p *person) expect(expr string) (string, error) {
	re := regexp.MustCompile(expr)
	buf := make([]byte, 4096)
	p.c.SetReadDeadline(time.Now().Add(time.Minute))
	for {
		if m := re.FindStringIndex(p.seen); m != nil {
			s := p.seen[m[0]:m[1]]
			p.seen = p.seen[m[1]:]
			return s, nil
		}
		n, err := p.c.Read(buf)
		p.seen += string(buf[:n])
		if err != nil {
			return "", fmt.Errorf("%s did not come: %w; there was %q", expr, err, p.seen)
		}
	}
}
