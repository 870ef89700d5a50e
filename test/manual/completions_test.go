package manual

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// completed are the programs with completions, the folders of their usage, their pages, and
// the options in these that are not offered.
var completed = map[string]struct{ dir, page, not string }{
	"factotum":      {"factotum", "factotum.8", "-c"}, // serve-caps has taken its place
	"sshfront":      {"sshfront", "sshfront.8", ""},
	"p9auth-switch": {"", "p9auth-switch.8", ""},
	"p9doas":        {"doas", "p9doas.1", "-a"}, // it is refused
	"p9passwd":      {"passwd", "p9passwd.1", ""},
	"p9su":          {"su", "p9su.1", ""},
}

// options are what the usage and the page of a program name.
func options(t *testing.T, program string) []string {
	t.Helper()
	c := completed[program]
	var text string
	if c.dir != "" {
		text = usage(t, c.dir)
	} else {
		text = read(t, "dist/"+program)
		_, text, _ = strings.Cut(text, "usage() {")
		text, _, _ = strings.Cut(text, "}")
	}
	all := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)(?:^|[\s\[\x60,])-(-[a-z]+(?:-[a-z]+)*|[A-Za-z0-9]+)\b`).FindAllStringSubmatch(text, -1) {
		if m[1][0] == '-' {
			all["-"+m[1]] = true
			continue
		}
		for _, letter := range m[1] {
			all["-"+string(letter)] = true
		}
	}
	for line := range strings.Lines(Source(t, c.page)) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == ".It" && f[1] == "Fl" {
			for _, w := range f[2:] {
				if w == "Ar" || w == "Cm" {
					break
				}
				if w != "Fl" && w != "," {
					all["-"+w] = true
				}
			}
		}
	}
	delete(all, c.not)
	return slices.Sorted(maps.Keys(all))
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(Top(), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestBashOffersEachOptionAndNoOther(t *testing.T) {
	for _, program := range slices.Sorted(maps.Keys(completed)) {
		offered := bash(t, program, "-")
		if want := options(t, program); !slices.Equal(offered, want) {
			t.Errorf("%s: bash offers %q, the manual and the usage have %q", program, offered, want)
		}
	}
	for _, c := range []struct {
		words []string // the last is what is completed
		want  []string
	}{
		{[]string{"factotum", "s"}, []string{"serve-caps", "status"}},
		{[]string{"p9auth-switch", ""}, []string{"all", "console", "local", "ssh", "status"}},
		{[]string{"p9auth-switch", "ssh", "o"}, []string{"off", "on"}},
		{[]string{"p9auth-switch", "-n", "local", "s"}, []string{"status"}},
		{[]string{"p9su", "roo"}, []string{"root"}},
		{[]string{"/usr/bin/p9su", "-g", "roo"}, []string{"root"}},
		{[]string{"p9su", "--pt"}, []string{"--pty"}},
		{[]string{"p9doas", "-u", "roo"}, []string{"root"}},
		{[]string{"p9doas", "-u", "root", "ls", "-"}, nil}, // options of ls
		{[]string{"sshfront", "-f", "/etc/passw"}, []string{"/etc/passwd"}},
	} {
		got := bash(t, c.words...)
		got = slices.DeleteFunc(got, func(s string) bool { return s == "/etc/passwd-" })
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: bash offers %q, not %q", c.words, got, c.want)
		}
	}
}

// bash returns what our completions offer for the last word.
func bash(t *testing.T, words ...string) []string {
	t.Helper()
	const script = `. "$0" && COMP_WORDS=("$@") && COMP_CWORD=$(($# - 1)) &&
		_p9auth "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"; printf '%s\n' "${COMPREPLY[@]}"`
	cmd := exec.Command("bash", append([]string{"--norc", "-c", script, filepath.Join(Top(), "dist/completions/p9auth.bash")}, words...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, out)
	}
	return slices.Compact(slices.Sorted(slices.Values(strings.Fields(string(out)))))
}

// zsh's completions say what they find to a function of ours, in a terminal.
func TestZshOffersEachOptionAndNoOther(t *testing.T) {
	if _, err := exec.LookPath("zsh"); err != nil {
		t.Skip("zsh is not there")
	}
	dir, err := filepath.Abs(filepath.Join(Top(), "dist/completions"))
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	rc := `PS1=; fpath=(` + dir + ` $fpath); autoload -U compinit; compinit -u -D; LISTMAX=1000
compadd() {
	case " ${@[1,(i)(-|--)]}" in *" -"[OAD]" "*) builtin compadd "$@"; return ;; esac
	typeset -a hits; builtin compadd -A hits "$@"; print -rl -- $hits >>` + tmp + `/$program
	builtin compadd "$@"
}
sent() { zle kill-whole-line; print done >` + tmp + `/$program.done; zle reset-prompt; }
zle -N sent; bindkey '^I' list-choices; bindkey '^X' sent; precmd() { print ready >` + tmp + `/ready; precmd() { : } }
`
	if err := os.WriteFile(tmp+"/.zshrc", []byte(rc), 0o644); err != nil {
		t.Fatal(err)
	}
	zsh := exec.Command("zsh", "-d", "-i")
	zsh.Env = []string{"ZDOTDIR=" + tmp, "TERM=dumb", "PATH=" + os.Getenv("PATH"), "HOME=" + tmp}
	term, err := pty.StartWithSize(zsh, &pty.Winsize{Rows: 100, Cols: 300})
	if err != nil {
		t.Fatal(err)
	}
	defer zsh.Wait()
	defer zsh.Process.Kill()
	defer term.Close()
	go func() { // what it shows is of no interest
		for b := make([]byte, 4096); ; {
			if _, err := term.Read(b); err != nil {
				return
			}
		}
	}()
	wait := func(name string) {
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if _, err := os.Stat(tmp + "/" + name); err == nil {
				return
			}
		}
		t.Fatalf("zsh does not answer: %s", name)
	}
	wait("ready")
	for _, program := range slices.Sorted(maps.Keys(completed)) {
		if _, err := term.WriteString("program=" + program + "\n" + program + " -\t\x18"); err != nil {
			t.Fatal(err)
		}
		wait(program + ".done")
		b, _ := os.ReadFile(tmp + "/" + program)
		offered := slices.Compact(slices.Sorted(slices.Values(strings.Fields(string(b)))))
		offered = slices.DeleteFunc(offered, func(s string) bool { return s == "-" }) // a command of zsh
		if want := options(t, program); !slices.Equal(offered, want) {
			t.Errorf("%s: zsh offers %q, the manual and the usage have %q", program, offered, want)
		}
	}
}
