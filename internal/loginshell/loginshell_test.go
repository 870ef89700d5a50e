package loginshell

import (
	"slices"
	"strings"
	"testing"

	"p9auth/internal/logindefs"
)

func TestHowAShellIsExecuted(t *testing.T) {
	for shell, want := range map[string][]string{
		"/bin/bash":              {"/bin/bash", "-bash"},
		"":                       {"/bin/sh", "-sh"},
		"/usr/bin/env bash --ok": {"/bin/sh", "-sh", "-c", "exec /usr/bin/env bash --ok"},
	} {
		path, argv := Command(shell)
		if got := append([]string{path}, argv...); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", shell, got, want)
		}
	}
}

func TestTheEnvironmentIsThatOfLoginDefs(t *testing.T) {
	for _, c := range []struct {
		defs logindefs.Defs
		uid  uint32
		want string
	}{
		{nil, 7, "HOME=/h LOGNAME=u MAIL=/var/mail/u PATH=/usr/local/bin:/bin:/usr/bin SHELL=/bin/sh USER=u"},
		{nil, 0, "HOME=/h LOGNAME=u MAIL=/var/mail/u PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin SHELL=/bin/sh USER=u"},
		{logindefs.Defs{"ENV_PATH": "PATH=/a", "ENV_SUPATH": "/s", "MAIL_DIR": "/m"}, 7, "HOME=/h LOGNAME=u MAIL=/m/u PATH=/a SHELL=/bin/sh USER=u"},
		{logindefs.Defs{"ENV_PATH": "PATH=/a", "ENV_SUPATH": "/s", "MAIL_FILE": ".mail"}, 0, "HOME=/h LOGNAME=u MAIL=/h/.mail PATH=/s SHELL=/bin/sh USER=u"},
		{logindefs.Defs{"ENV_ROOTPATH": "PATH=/r", "MAIL_DIR": "/m", "MAIL_FILE": "f"}, 0, "HOME=/h LOGNAME=u MAIL=/m/u PATH=/r SHELL=/bin/sh USER=u"},
	} {
		env := Environment(c.defs, "u", c.uid, "/h", "")
		slices.Sort(env)
		if got := strings.Join(env, " "); got != c.want {
			t.Errorf("%v, uid %d: %s", c.defs, c.uid, got)
		}
	}
}

func TestTheLastOfAVariableCounts(t *testing.T) {
	if got := Merge([]string{"A=1", "B=1", "=x", "nothing"}, nil, []string{"A=2", "C=a=b"}, []string{"A=3"}); !slices.Equal(got, []string{"A=3", "B=1", "C=a=b"}) {
		t.Errorf("%q", got)
	}
}

func TestAFrontEndMayNameTheTerminalAndTheLanguageOnly(t *testing.T) {
	for kv, want := range map[string]bool{
		"TERM=xterm-256color": true, "LANG=de_DE.UTF-8@euro": true, "LC_ALL=C": true, "LC_TIME=": true,
		"TERM=/tmp/x": false, "TERM=../x": false, "LANG=a\nb": false, "LANG=ä": false, "LC_ALL=" + strings.Repeat("x", 257): false,
		"LD_PRELOAD=x": false, "BASH_ENV=x": false, "ENV=x": false, "TERMINFO=x": false, "LANGUAGE=x": false, "LOCPATH=x": false, "PATH=x": false,
		"term=x": false, "LC_A B=x": false,
	} {
		name, value, _ := strings.Cut(kv, "=")
		if MayPass(name, value) != want {
			t.Errorf("%.40q: not %v", kv, want)
		}
	}
}

func FuzzMayPass(f *testing.F) {
	f.Add("TERM", "linux")
	f.Add("LC_ALL", "../x")
	f.Fuzz(func(t *testing.T, name, value string) {
		if MayPass(name, value) && (strings.ContainsAny(name+value, "/\n\x00") || len(name)+len(value) > 2*maxValue) {
			t.Errorf("%q=%q", name, value)
		}
	})
}
