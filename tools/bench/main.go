// Bench measures p9auth's ssh beside the machine's sshd, Debian 13's sshd ("sshd 10",
// where scripts/openssh13 has unpacked it) and dropbear: the same machine,
// users, host key, client, key exchange and ciphers, the servers in turn.
//
// It prints a table of medians, with the least and the greatest value, and asserts
// nothing. It keeps what it has measured in a file, and prints beside each value the
// one that the run before kept there. Processor time is that of all processes of a
// server, by a control group: for p9auth factotum, its workers, the listener and
// what they start; the programs that users run are in it for every server alike.
//
// It runs as root, in a testbed (scripts/testbed). See CONTRIBUTING.md.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// sizes is how much is done.
type sizes struct {
	Rounds   int // of each row, the servers in turn
	Logins   int // one after the other, in each round
	Parallel int // logins in each round, sixteen at a time
	MiB      int // each way, in each round
	Sessions int // at once, for memory
	Silent   int // connections that say nothing
}

// A value is what a row has for a server: the median of the rounds, and the extremes.
type value struct{ Median, Min, Max float64 }

// A row is one figure of all servers.
type row struct {
	Name   string
	Unit   string
	Values map[string]value // by the name of the server; without one that cannot do it
}

func main() {
	var n sizes
	flag.IntVar(&n.Rounds, "rounds", 5, "how often each figure is measured")
	flag.IntVar(&n.Logins, "logins", 20, "logins one after the other, a round")
	flag.IntVar(&n.Parallel, "parallel", 96, "logins sixteen at a time, a round")
	flag.IntVar(&n.MiB, "mib", 512, "MiB sent each way, a round")
	flag.IntVar(&n.Sessions, "sessions", 200, "sessions at once")
	flag.IntVar(&n.Silent, "silent", 1000, "connections that say nothing")
	file := flag.String("file", "build/bench.json", "where the figures of this run are kept, and those of the run before are")
	only := flag.String("only", "", "rows whose names contain this")
	flag.Parse()
	if err := bench(n, *file, *only); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func bench(n sizes, file, only string) (err error) {
	if os.Getuid() != 0 {
		return errors.New("the testbed needs root")
	}
	before, err := load(file)
	if err != nil {
		return err
	}
	b, err := up()
	defer func() { err = errors.Join(err, b.down()) }()
	if err != nil {
		return err
	}
	var rows []row
	for _, m := range measurements {
		if !strings.Contains(m.name, only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s ...\n", m.name)
		r, err := b.measure(m, n)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		rows = append(rows, r...)
	}
	print(b.servers, rows, before)
	if only != "" {
		return nil
	}
	return save(file, rows)
}

// print prints the table. A value of the run before is in brackets.
func print(servers []*server, rows, before []row) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "figure\tunit")
	for _, s := range servers {
		fmt.Fprintf(w, "\t%s", s.name)
	}
	fmt.Fprintln(w, "\tto sshd\tto sshd 10")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s", r.Name, r.Unit)
		for _, s := range servers {
			v, ok := r.Values[s.name]
			if !ok {
				fmt.Fprint(w, "\t-")
				continue
			}
			fmt.Fprintf(w, "\t%.4g (%.4g-%.4g)", v.Median, v.Min, v.Max)
			if old, ok := find(before, r.Name, s.name); ok {
				fmt.Fprintf(w, " [%.4g]", old.Median)
			}
		}
		for _, peer := range []string{"sshd", "sshd 10"} {
			ratio := "-"
			if v, ok := r.Values[peer]; ok && v.Median != 0 {
				ratio = fmt.Sprintf("%.2f", r.Values["p9auth"].Median/v.Median)
			}
			fmt.Fprintf(w, "\t%s", ratio)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}

func find(rows []row, name, server string) (value, bool) {
	for _, r := range rows {
		if r.Name == name {
			v, ok := r.Values[server]
			return v, ok
		}
	}
	return value{}, false
}

func load(file string) (rows []row, err error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &rows)
	}
	if err != nil {
		return nil, fmt.Errorf("what the run before has kept: %w (remove %s)", err, file)
	}
	return rows, nil
}

func save(file string, rows []row) error {
	text, err := json.MarshalIndent(rows, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// summary is the value of what the rounds have measured.
func summary(v []float64) value {
	slices.Sort(v)
	return value{v[len(v)/2], v[0], v[len(v)-1]}
}
