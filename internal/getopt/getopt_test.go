package getopt

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

var options = []Option{{'S', "status", false}, {'q', "quiet", false}, {'x', "maxdays", true}, {'n', "mindays", true}, {0, "only-long", true}, {'z', "", false}}

// quoted is what getopt(1) prints of a command line.
func quoted(given []Given, operands []string) string {
	var b strings.Builder
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	for _, g := range given {
		for _, o := range options {
			if o.Name() != g.Name {
				continue
			}
			if o.Short != 0 {
				fmt.Fprintf(&b, " -%c", o.Short)
			} else {
				fmt.Fprintf(&b, " --%s", o.Long)
			}
			if o.Arg {
				b.WriteString(" " + quote(g.Value))
			}
		}
	}
	b.WriteString(" --")
	for _, o := range operands {
		b.WriteString(" " + quote(o))
	}
	return b.String()
}

// TestParseIsGetoptLong compares with getopt(1), which calls the C library. It prints
// the long name of an option that was given by that.
func TestParseIsGetoptLong(t *testing.T) {
	for _, inOrder := range []bool{false, true} {
		for _, line := range [][]string{
			{}, {"alice"}, {"-S"}, {"-S", "alice"}, {"alice", "-S"}, {"-Sq", "alice"}, {"-qx5"}, {"-qx", "5", "a"}, {"-x"}, {"-Sx"}, {"-x", "-S"},
			{"--", "-S"}, {"-S", "--", "-q", "x"}, {"-", "-S"}, {"", "-S"}, {"-w"}, {"-Sw"}, {"-z-"}, {"-S-"}, {"--only-long=a'b"}, {"--only-long", "c", "d"}, {"--only"},
			{"--only-long"}, {"--only-long="}, {"--nosuch"}, {"--nosuch=1"}, {"--only-long=x=y"}, {"a", "b", "-z", "c"}, {"-x", "", "a"},
		} {
			short, long := "Sqx:n:z", ""
			if inOrder {
				short = "+" + short
			}
			for _, o := range options {
				if o.Long != "" {
					long += o.Long
					if o.Arg {
						long += ":"
					}
					long += ","
				}
			}
			var errs strings.Builder
			cmd := exec.Command("getopt", append([]string{"-n", "p", "-o", short, "-l", long, "--"}, line...)...)
			cmd.Stderr = &errs
			out, runErr := cmd.Output()
			given, operands, err := Parse(line, options, inOrder)
			got, want := quoted(given, operands), strings.TrimSuffix(string(out), "\n")
			if err != nil {
				got, want = "p: "+err.Error(), strings.TrimSuffix(errs.String(), "\n")
			}
			if (runErr != nil) != (err != nil) || got != want {
				t.Errorf("%q (in order: %v): %s; getopt prints %s%s", line, inOrder, got, out, errs.String())
			}
		}
	}
}

func TestABeginningOfALongNameIsEnough(t *testing.T) {
	for _, c := range []struct{ arg, want string }{
		{"--st", "[{S }]"}, {"--max=9", "[{x 9}]"}, {"--m=9", "option '--m=9' is ambiguous; possibilities: '--maxdays' '--mindays'"},
		{"--status=1", "option '--status' doesn't allow an argument"}, {"--mindays", "option '--mindays' requires an argument"},
	} {
		given, _, err := Parse([]string{c.arg}, options, false)
		got := fmt.Sprint(given)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.arg, got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("-S\x00alice\x00--", true)
	f.Add("--maxdays=5\x00-qx", false)
	f.Fuzz(func(t *testing.T, line string, inOrder bool) {
		args := strings.Split(line, "\x00")
		given, operands, err := Parse(args, options, inOrder)
		if err == nil && len(operands) > len(args) {
			t.Errorf("%q: %v %q", args, given, operands)
		}
	})
}
