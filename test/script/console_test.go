package script

import (
	"os/exec"
	"strings"
	"testing"
)

// showConsole is what "systemctl show" says of a console with a command for agetty,
// with lines that replace or add properties.
func showConsole(command string, lines ...string) string {
	path, _, _ := strings.Cut(command, " ")
	p := []string{
		"Id=getty@tty1.service", "LoadState=loaded", "User=", "StandardInput=tty", "TTYPath=/dev/tty1",
		"ExecStartEx={ path=" + path + " ; argv[]=" + command + " ; flags=ignore-failure ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }",
		"CapabilityBoundingSet=cap_chown cap_setgid cap_setuid cap_sys_chroot cap_audit_control cap_bpf",
		"NoNewPrivileges=no", "SystemCallFilter=~", "SystemCallArchitectures=", "RestrictAddressFamilies=~", "RestrictNamespaces=no",
		"PrivateDevices=no", "DynamicUser=no", "LockPersonality=no",
	}
	return strings.Join(append(p, lines...), "\n") + "\n"
}

// What is meant by a console's unit is kept, or the console is left alone.
func TestSwitchKeepsWhatAConsoleIsMeantToDo(t *testing.T) {
	const login = "/sbin/agetty --login-program /usr/lib/p9auth/login "
	several := "ExecStartEx={ path=/sbin/agetty ; argv[]=/sbin/agetty tty1 ; flags= ; start_time=[n/a] }"
	for _, c := range []struct {
		name, show string
		verdict    string
		lines      string // of the drop-in's [Service]
	}{
		{"Debian 12", showConsole(`/sbin/agetty -o -p -- \u --noclear - $TERM`), "switch",
			"ExecStart=-" + login + `--login-options "-p -- \\u" --noclear - $TERM`},
		{"Debian 13", showConsole(`/sbin/agetty -o -- \u --noreset --noclear --keep-baud 115200,57600,38400,9600 - ${TERM}`), "switch",
			"ExecStart=-" + login + `--login-options "-- \\u" --noreset --noclear --keep-baud 115200,57600,38400,9600 - ${TERM}`},
		{"speeds after the port", showConsole(`/sbin/agetty -o -p -- \u --noclear --keep-baud - 115200,38400,9600 $TERM`), "switch",
			"ExecStart=-" + login + `--login-options "-p -- \\u" --noclear --keep-baud - 115200,38400,9600 $TERM`},
		{"speed first, as of old", showConsole(`/sbin/agetty 9600 tty1 vt102`), "switch",
			"TTYPath=/dev/%I\nExecStart=-" + login + "9600 - vt102"},
		{"a port that agetty opens", showConsole(`/usr/sbin/agetty -L=always /dev/ttyUSB0 9600`), "switch",
			"TTYPath=/dev/ttyUSB0\nExecStart=-/usr/sbin/agetty --login-program /usr/lib/p9auth/login --local-line=always - 9600"},
		{"options", showConsole(`/sbin/agetty -8J --nohints tty1`), "leave its option -8J of agetty is not understood", ""},
		{"options with values", showConsole(`/sbin/agetty -8 -t30 --issue-file=/etc/100%.issue -d 2 --nice 5 -l /bin/login tty1 linux`), "switch",
			"TTYPath=/dev/%I\nExecStart=-" + login + "--8bits --timeout 30 --issue-file /etc/100%%.issue --delay 2 --nice 5 - linux"},
		{"no dash before the command", strings.Replace(showConsole(`/sbin/agetty -`), "ignore-failure", "", 1), "switch", "ExecStart=" + login + "-"},
		{"autologin", showConsole(`/sbin/agetty --autologin alice --noclear tty1 $TERM`), "root it lets alice in without a password",
			"ExecStart=-" + login + "--autologin alice --noclear %I $TERM"},
		{"autologin, short", showConsole(`/sbin/agetty -aroot tty1`), "root it lets root in without a password",
			"ExecStart=-" + login + "--autologin root %I"},
		{"autologin with login's options", showConsole(`/sbin/agetty -o -p -f -- \u --noclear --autologin alice tty1 $TERM`), "root it lets alice in without a password",
			"ExecStart=-" + login + `--login-options "-p -f -- \\u" --noclear --autologin alice %I $TERM`},
		{"a name without its login", showConsole(`/sbin/agetty -o -p -- \u -a alice - $TERM`), "switch",
			"ExecStart=-" + login + `--login-options "-p -- \\u" --autologin alice - $TERM`},
		{"login -f of a name that is typed", showConsole(`/sbin/agetty -o -pf -- \u - $TERM`), "root the options of login are for root", "ExecStart=-" + login + `--login-options "-pf -- \\u" - $TERM`},
		{"a host", showConsole(`/sbin/agetty -E -H there tty1`), "root login believes only root where a person comes from", "ExecStart=-" + login + `--remote --host there %I`},
		{"something before agetty", showConsole(`/sbin/agetty -`, "ExecStartPre={ path=/bin/setterm ; argv[]=/bin/setterm }"), "root its ExecStartPre may need that", "ExecStart=-" + login + "-"},
		{"a priority of root's", showConsole(`/sbin/agetty --nice -5 -`), "root agetty gets a priority that is for root", "ExecStart=-" + login + "--nice -5 -"},
		{"login's options that end otherwise", showConsole(`/sbin/agetty -o -f root -n tty1`), `leave its options of login do not end with \u`, ""},
		{"another program than agetty", showConsole(`/bin/bash`), "leave it runs /bin/bash", ""},
		{"agetty by another name", strings.Replace(showConsole(`/sbin/agetty tty1`), "argv[]=/sbin/agetty", "argv[]=getty", 1), "leave it runs /sbin/agetty as getty", ""},
		{"two commands", showConsole(`/sbin/agetty -`, several, several), "leave it has not one command", ""},
		{"a command with all rights", strings.Replace(showConsole(`/sbin/agetty -`), "ignore-failure", "ignore-failure privileged", 1), "leave its command has the flag ignore-failure privileged", ""},
		{"another login", showConsole(`/sbin/agetty -n -l /usr/local/bin/autologin tty1`), "leave it runs /usr/local/bin/autologin in the place of login", ""},
		{"another root", showConsole(`/sbin/agetty --chroot=/srv tty1`), "leave its agetty has a root directory of its own", ""},
		{"an option of another agetty", showConsole(`/sbin/agetty --new-thing tty1`), "leave its option --new-thing of agetty is not understood", ""},
		{"an option without its value", showConsole(`/sbin/agetty tty1 -t`), "leave its option -t of agetty has no value", ""},
		{"no port", showConsole(`/sbin/agetty 9600`), "leave its arguments of agetty are not understood", ""},
		{"too much", showConsole(`/sbin/agetty tty1 9600 vt102 more`), "leave its arguments of agetty are not understood", ""},
		{"no terminal", showConsole(`/sbin/agetty -`, "StandardInput=null"), "leave its agetty has no terminal", ""},
		{"another user", showConsole(`/sbin/agetty -`, "User=kiosk"), "leave it has User=kiosk", ""},
		{"no new rights", showConsole(`/sbin/agetty -`, "NoNewPrivileges=yes"), "leave it has NoNewPrivileges=yes", ""},
		{"a filter", showConsole(`/sbin/agetty -`, "SystemCallFilter=read write"), "leave it has SystemCallFilter=read write", ""},
		{"a bounding set", showConsole(`/sbin/agetty -`, "CapabilityBoundingSet=cap_setgid"), "leave its CapabilityBoundingSet lacks CAP_SETUID", ""},
		{"a password by PAMName", showConsole(`/sbin/agetty -`, "PAMName=login"), "leave it has PAMName=login", ""},
		{"ours", showConsole(`/sbin/agetty --login-program /usr/lib/p9auth/login -`, "User=_login"), "ours", ""},
		{"masked", showConsole(`/sbin/agetty -`, "LoadState=masked"), "none", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command("../../dist/console-dropin")
			cmd.Stdin = strings.NewReader(c.show)
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			verdict, text, _ := strings.Cut(strings.TrimSuffix(string(out), "\n"), "\n")
			if verdict != c.verdict {
				t.Fatalf("got %s, want %s", out, c.verdict)
			}
			if c.lines == "" {
				if text != "" {
					t.Errorf("got a drop-in: %s", text)
				}
				return
			}
			_, service, _ := strings.Cut(text, "[Service]\n")
			want := "ExecStart=\n" + c.lines
			if tty, command, ok := strings.Cut(c.lines, "\n"); ok {
				want = tty + "\nExecStart=\n" + command
			}
			if verdict == "switch" {
				want = "User=_login\nStandardInput=tty\nStandardOutput=tty\n" + want
			}
			if service != want {
				t.Errorf("got\n%s\nwant\n%s", service, want)
			}
		})
	}
}
