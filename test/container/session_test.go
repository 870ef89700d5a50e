//go:build containers

package container

import (
	"regexp"
	"strings"
	"testing"
)

// With su, whoever is in a session stays in it, as with the setuid su: systemd-logind
// makes no other, and PAM is told of the terminal in the same words.
func TestSuMakesNoSessionOfItsOwn(t *testing.T) {
	m := Boot(t, `chmod u+s /usr/bin/su
for s in su su-l; do sed -i '1i auth optional pam_exec.so /usr/local/bin/told' /etc/pam.d/$s; done
printf '#!/bin/sh\necho "$PAM_SERVICE $PAM_TTY $PAM_RUSER $PAM_USER" >>/var/tmp/told\n' >/usr/local/bin/told
chmod 755 /usr/local/bin/told
>/var/tmp/told
chmod 666 /var/tmp/told`)
	saw := map[string]string{}
	for _, whose := range []string{"the system's", "ours"} {
		if whose == "ours" {
			want(t, m.Sh(t, "p9auth-switch local on"), ".*local is on: su.*")
		}
		logIn(t, m, m.Console, "console-getty.service", "alice")
		session := m.Console.Run(`echo $XDG_SESSION_ID`)
		for _, su := range []string{"su bob", "su - bob"} {
			m.Console.Send(su + "\n")
			m.Console.Expect("Password: $")
			m.Console.Send("open-sesame\n")
			m.Console.Expect(`\$ $`)
			got := m.Console.Run(`id -un; echo "session $XDG_SESSION_ID, runtime $XDG_RUNTIME_DIR"; sed -n 's/^0:://p' /proc/self/cgroup; loginctl --no-pager --no-legend list-sessions | awk '$3 == "bob"'`)
			saw[whose] += strings.ReplaceAll(got, session, "ID") + "\n"
			m.Console.Send("exit\n")
			m.Console.Expect(`\$ $`)
		}
		m.Console.Send("exit\n")
		saw[whose] += m.Sh(t, "cat /var/tmp/told; >/var/tmp/told")
	}
	if saw["ours"] != saw["the system's"] {
		t.Errorf("by the system's su\n%s\nby ours\n%s", saw["the system's"], saw["ours"])
	}
	t.Log(saw["ours"])
}

// w, who and loginctl show a session by SSH, its terminal and what runs there, as they do
// with sshd. Where there is no utmp, as in Debian 13, w looks with sshd for a terminal among
// the children of the process that leads the session of systemd-logind, and loginctl and who
// know of none. With sshfront logind knows it.
func TestWhoIsThereBySSH(t *testing.T) {
	m := Boot(t, "")
	look := func() string {
		out, err := m.SSH("-tt", "alice@127.0.0.1", `w -h >~/w; awk '{ print "w:", $1, $2, /factotum[-]pam/ ? "factotum" : /w -h/ ? "w" : "another" }' ~/w; echo "tty: $(tty)"; echo "who: $(who | awk '{ print $1, $2, $NF }')"; loginctl --no-pager --no-legend list-sessions | sed -n 's,.*alice.* \(pts/[0-9]*\) .*,list: \1,p'; loginctl --no-pager show-session $XDG_SESSION_ID -p TTY -p Service -p RemoteHost -p Type -p State`).CombinedOutput()
		if err != nil {
			t.Fatalf("ssh: %v: %s", err, out)
		}
		return strings.ReplaceAll(string(out), "\r", "")
	}
	sshd := look()
	m.Sh(t, "p9auth-switch "+accepted+" ssh on")
	want(t, m.Sh(t, "p9auth-switch status"), "ssh: on")
	ours := look()
	of := regexp.MustCompile(`(?m)^tty: /dev/(pts/\d+)$`).FindStringSubmatch(sshd)
	if of == nil {
		t.Fatalf("sshd gives no terminal: %s", sshd)
	}
	want(t, sshd, "w: alice "+of[1]+" w")
	knows := sshd
	if strings.Contains(sshd, "TTY=\n") { // logind with sshd knows of no terminal
		knows = strings.NewReplacer("who: alice sshd ", "who: alice "+of[1]+" ", "TTY=\n", "list: "+of[1]+"\nTTY="+of[1]+"\n").Replace(sshd)
	}
	if ours != knows {
		t.Errorf("with sshd\n%s\nwith sshfront\n%s", sshd, ours)
	}
	t.Log(ours)
}
