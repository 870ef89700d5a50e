package doasconf

import (
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestARuleIsReadInItsParts(t *testing.T) {
	rules, err := Parse([]byte("# who\npermit nopass keepenv setenv { A -B C=$D } :wheel as bob cmd /bin/ls args -l \"a b\" # all\ndeny bob\npermit \"permit\"al\\\nice cmd ls args\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(rules) != 3 {
		t.Fatalf("%d rules: %+v", len(rules), rules)
	}
	r := rules[0]
	if !r.Permit || !r.NoPass || !r.KeepEnv || r.Persist || r.NoLog || !slices.Equal(r.SetEnv, []string{"A", "-B", "C=$D"}) ||
		r.Ident != ":wheel" || r.Target != "bob" || r.Cmd != "/bin/ls" || !slices.Equal(r.Args, []string{"-l", "a b"}) || r.Line != 2 {
		t.Errorf("%+v", r)
	}
	if r := rules[1]; r.Permit || r.HasTarget || r.HasCmd || r.HasArgs {
		t.Errorf("%+v", r)
	}
	if r := rules[2]; r.Ident != "permitalice" || !r.HasArgs || len(r.Args) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestAFileThatIsTooLargeIsRefused(t *testing.T) {
	if _, err := Parse([]byte(strings.Repeat("permit a\n", MaxRules))); err != nil {
		t.Error(err)
	}
	for _, text := range []string{strings.Repeat("permit a\n", MaxRules+1), strings.Repeat("\n", MaxSize+1), "permit " + strings.Repeat("a", maxWord+1) + "\n"} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%d bytes are accepted", len(text))
		}
	}
}

// system finds users and groups as doas does, by this machine's files.
type system struct{}

func (system) UID(name string) (uint32, bool) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, false
	}
	return ParseID(u.Uid)
}

func (system) GID(name string) (uint32, bool) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, false
	}
	return ParseID(g.Gid)
}

// opendoas is the program that this package is compared with.
func opendoas(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("doas")
	if err != nil {
		t.Skip("opendoas is not installed: scripts/deps lists it")
	}
	return path
}

// An identity runs doas -C.
type identity struct {
	uid, gid uint32
	groups   []uint32
}

// identities are those that a test can have.
func identities() []identity {
	if os.Getuid() != 0 {
		groups, _ := os.Getgroups()
		i := identity{uid: uint32(os.Getuid()), gid: uint32(os.Getgid())}
		for _, g := range groups {
			i.groups = append(i.groups, uint32(g))
		}
		return []identity{i}
	}
	return []identity{{0, 0, nil}, {1, 1, []uint32{1}}, {2, 2, []uint32{1, 4}}, {65534, 65534, []uint32{0}}}
}

// theirs is what opendoas says of a file and a command, ours what this package does.
func theirs(doas, file string, who identity, target string, argv []string) string {
	cmd := exec.Command(doas, append([]string{"-u", target, "-C", file}, argv...)...)
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: who.uid, Gid: who.gid, Groups: who.groups}}
	}
	out, _ := cmd.CombinedOutput()
	first, _, _ := strings.Cut(string(out), "\n")
	return first
}

func ours(text string, who identity, target string, argv []string) string {
	rules, err := Parse([]byte(text))
	if err != nil {
		return "doas: " + err.Error()
	}
	if len(argv) == 0 {
		return ""
	}
	uid, _ := number(target, system{}.UID)
	r := Decide(rules, Request{UID: who.uid, Groups: append(slices.Clone(who.groups), who.gid), Target: uid, Argv: argv}, system{})
	switch {
	case r == nil || !r.Permit:
		return "deny"
	case r.NoPass:
		return "permit nopass"
	}
	return "permit"
}

// pieces are what files are made of: valid lines more often than not.
var pieces = struct{ idents, targets, cmds, odd []string }{
	[]string{"root", "daemon", "bin", "nobody", ":daemon", ":adm", ":root", "0", "1", ":4", "nosuch", ":nosuch", "\"root\"", "da\\emon", "4294967295", "-1", ":", "\"\"", "01", "+1", "\" 1\"", "-0", "1x", "1_0", "0x1"},
	[]string{"root", "daemon", "0", "1", "nosuch"},
	[]string{"ls", "/bin/ls", "id", "\"ls\"", "l\\s", "\"a b\"", "\"\""},
	[]string{"{", "}", "\"", "\\", "\\\n", "\n", "#", " # x \\\n", "permit", "deny", "as", "cmd", "args", "setenv", "nopass", "persist", "\t", "''", "\\\"", "\\ ", "\\{", "\\#", "x", "\x01", "\xff", "\x00"},
}

// file makes one.
func file(r *rand.Rand) string {
	pick := func(list []string) string { return list[r.Intn(len(list))] }
	var b strings.Builder
	for range 1 + r.Intn(5) {
		words := []string{"deny"}
		if r.Intn(3) > 0 {
			words = []string{"permit"}
			for _, o := range []string{"nopass", "persist", "keepenv", "nolog", "setenv { A B=C }", "setenv { -A", "setenv {}"} {
				if r.Intn(8) == 0 {
					words = append(words, o)
				}
			}
		}
		words = append(words, pick(pieces.idents))
		if r.Intn(3) == 0 {
			words = append(words, "as", pick(pieces.targets))
		}
		if r.Intn(2) == 0 {
			words = append(words, "cmd", pick(pieces.cmds))
			if r.Intn(2) == 0 {
				words = append(words, "args")
				for range r.Intn(3) {
					words = append(words, pick(append([]string{"-l"}, pieces.cmds...)))
				}
			}
		}
		for range r.Intn(40) / 36 {
			at := r.Intn(len(words) + 1)
			words = slices.Insert(words, at, pick(pieces.odd))
		}
		line := strings.Join(words, " ")
		for range r.Intn(40) / 37 {
			at := r.Intn(len(line))
			line = line[:at] + pick(pieces.odd) + line[at:]
		}
		b.WriteString(line + "\n")
	}
	text := b.String()
	if r.Intn(20) == 0 {
		text = text[:r.Intn(len(text))]
	}
	return text
}

// TestFilesMeanWhatOpendoasSays compares many of them; DOASCONF_FILES says how many.
func TestFilesMeanWhatOpendoasSays(t *testing.T) {
	doas, n, seed := opendoas(t), 400, rand.Int63()
	if s := os.Getenv("DOASCONF_FILES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewSource(seed))
	path := filepath.Join(readable(t), "doas.conf")
	who := identities()
	said := map[string]int{}
	// Some hundred files have each answer among them, as a rule.
	lacks := func() string {
		for _, a := range []string{"permit", "permit nopass", "deny", "error"} {
			if n >= 400 && said[a] == 0 {
				return a
			}
		}
		return ""
	}
	for i := 0; i < n || i < 10*n && lacks() != ""; i++ {
		text := file(r)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			i := who[r.Intn(len(who))]
			target := []string{"root", "daemon", "1"}[r.Intn(3)]
			argv := [][]string{nil, {"ls"}, {"ls", "-l"}, {"/bin/ls", "ls"}, {"id"}, {"a b"}, {"ls", ""}, {"", "ls"}, {"id", "id", "-l"}}[r.Intn(9)]
			a, b := theirs(doas, path, i, target, argv), ours(text, i, target, argv)
			if strings.HasPrefix(a, "doas: ") {
				a, b = alike(a), alike(b)
			}
			if a != b {
				t.Fatalf("seed %d: %+v as %s %q: opendoas says %q, this package %q of\n%q", seed, i, target, argv, a, b, text)
			}
			if strings.HasPrefix(a, "doas: ") {
				a = "error"
			}
			said[a]++
		}
	}
	if want := lacks(); want != "" {
		t.Errorf("no file means %s: %v", want, said)
	}
}

// alike takes from an error where it is: opendoas says the line that it has read to,
// and counts columns as its lexer sees them.
func alike(s string) string {
	s, _, _ = strings.Cut(s, " at line ")
	s, _, _ = strings.Cut(s, " in column ")
	return s
}

// readable is a directory that each identity can read.
func readable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "doasconf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTheEnvironmentIsOpendoass(t *testing.T) {
	rules, err := Parse([]byte("permit a\npermit keepenv a\npermit setenv { A B=C -TERM D=$A PATH E=$NONE F } a cmd x\npermit keepenv setenv { PATH=$A -A } a cmd x\n"))
	if err != nil {
		t.Fatal(err)
	}
	old := []string{"A=1", "PATH=/here", "TERM=vt", "A=2", "HOME=/home/a", "=x", "nothing", "LD_PRELOAD=x"}
	for i, want := range []string{
		"DOAS_USER=a HOME=/b LOGNAME=b PATH=" + SafePath + " SHELL=/bin/sh TERM=vt USER=b",
		"A=1 DOAS_USER=a HOME=/b LD_PRELOAD=x LOGNAME=b PATH=" + SafePath + " SHELL=/bin/sh TERM=vt USER=b",
		"A=1 B=C D=1 DOAS_USER=a HOME=/b LOGNAME=b PATH=/here SHELL=/bin/sh USER=b",
		"DOAS_USER=a HOME=/b LD_PRELOAD=x LOGNAME=b PATH=1 SHELL=/bin/sh TERM=vt USER=b",
	} {
		got := strings.Join(rules[i].Environment("a", Person{"b", "/b", "/bin/sh"}, old), " ")
		if got != want {
			t.Errorf("line %d: %s, want %s", i+1, got, want)
		}
	}
}

// A FuzzParse finds out that no file makes the parser fail, or say that there is a
// rule without an identity.
func FuzzParse(f *testing.F) {
	f.Add([]byte("permit nopass setenv { A=$B -C } :wheel as root cmd \"ls\" args -l\ndeny bob # x\n"))
	f.Add([]byte("permit persist al\\\nice cmd \"\" args \"\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		rules, err := Parse(text)
		if err != nil {
			if rules != nil {
				t.Error("both rules and an error")
			}
			return
		}
		if len(rules) > MaxRules || len(rules) > strings.Count(string(text), "\n") {
			t.Errorf("%d rules of %d lines", len(rules), strings.Count(string(text), "\n"))
		}
		for _, r := range rules {
			if !r.Permit && (r.NoPass || r.Persist || r.KeepEnv || r.SetEnv != nil) || r.NoPass && r.Persist || r.HasArgs && !r.HasCmd {
				t.Errorf("%+v", r)
			}
		}
		Decide(rules, Request{UID: 1, Groups: []uint32{1}, Argv: []string{"ls"}}, system{})
	})
}

func ExampleDecide() {
	rules, _ := Parse([]byte("permit 1000\ndeny 1000 cmd sh\n"))
	for _, cmd := range []string{"id", "sh"} {
		r := Decide(rules, Request{UID: 1000, Argv: []string{cmd}}, system{})
		fmt.Println(cmd, r.Permit, r.Line)
	}
	// Output:
	// id true 1
	// sh false 2
}
