// Licences writes the copyright file of programs in the form that Debian's machines read
// (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/): who has the rights
// in each Go module that is linked into one of them, in Go's own library and run-time
// system, and in this tree, with the texts and notices that must go with the programs.
//
//	licences LICENSE PROGRAM ... >copyright
//
// It believes what the linker wrote into the programs, and no list of its own. A module
// without a licence, or with one that it does not know, is an error.
package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
)

// A component is what one paragraph of the file is about.
type component struct {
	name     string // as in "Files:"
	dir      string // its source
	patched  bool   // it is not as its authors published it
	programs []string
	files    []string // the source files that are compiled for a program
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: licences LICENSE PROGRAM ...")
		os.Exit(2)
	}
	if err := write(os.Stdout, os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func write(w io.Writer, own string, programs []string) error {
	text, err := os.ReadFile(own)
	if err != nil {
		return err
	}
	components := map[string]*component{}
	for _, p := range programs {
		if err := linked(components, p); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	var texts licences
	fmt.Fprint(w, "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: p9auth\n",
		"Comment: The programs are linked statically with what follows, by the module's path and\n",
		" version; each text goes for the whole module. factotum-pam takes libc and libpam from\n",
		" the system's packages. On Debian, Apache-2.0 is /usr/share/common-licenses/Apache-2.0, too.\n")
	err = paragraph(w, &texts, "*", string(text), "")
	for _, name := range sorted(components) {
		if err == nil {
			err = components[name].write(w, &texts)
		}
	}
	if err != nil {
		return err
	}
	for _, l := range texts.list {
		fmt.Fprintf(w, "\nLicense: %s\n%s", l.name, indent(l.text))
	}
	return nil
}

// linked adds what is linked into a program that Go's linker made.
func linked(to map[string]*component, program string) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	modules := map[string]*component{}
	use := func(name, mod string) *component {
		c := to[name]
		if c == nil {
			c = &component{name: name}
			to[name] = c
		}
		c.programs = append(c.programs, filepath.Base(program))
		modules[mod] = c
		return c
	}
	goroot, err := output(nil, "go", "env", "GOROOT")
	if err != nil {
		return err
	}
	use("go@"+strings.TrimPrefix(info.GoVersion, "go"), "").dir = strings.TrimSpace(string(goroot))
	for _, d := range info.Deps {
		use(d.Path+"@"+d.Version, d.Path).patched = d.Replace != nil
	}
	packages, err := list(info)
	if err != nil {
		return err
	}
	for _, p := range packages {
		c := modules[p.Module.Path]
		if c == nil {
			continue // of this tree
		}
		if p.Module.Path != "" {
			c.dir = p.Module.Dir
		}
		for _, f := range slices.Concat(p.GoFiles, p.CgoFiles, p.CFiles, p.HFiles, p.SFiles) {
			if f = filepath.Join(p.Dir, f); !slices.Contains(c.files, f) {
				c.files = append(c.files, f)
			}
		}
	}
	for mod, c := range modules {
		if c.dir == "" {
			return fmt.Errorf("the source of module %s cannot be found", mod)
		}
	}
	return nil
}

type goPackage struct {
	Dir                                       string
	Module                                    struct{ Path, Dir string }
	GoFiles, CgoFiles, CFiles, HFiles, SFiles []string
}

// list asks go(1) which packages a program consists of, by the settings it was built with.
func list(info *debug.BuildInfo) (ps []goPackage, err error) {
	args := []string{"list", "-deps", "-json=Dir,Module,GoFiles,CgoFiles,CFiles,HFiles,SFiles"}
	var env []string
	for _, s := range info.Settings {
		switch s.Key {
		case "GOARCH", "GOOS", "CGO_ENABLED":
			env = append(env, s.Key+"="+s.Value)
		case "-tags":
			args = append(args, "-tags", s.Value)
		}
	}
	out, err := output(env, "go", append(args, info.Path)...)
	for d := json.NewDecoder(bytes.NewReader(out)); err == nil; {
		var p goPackage
		if err = d.Decode(&p); err == nil {
			ps = append(ps, p)
		}
	}
	if errors.Is(err, io.EOF) {
		return ps, nil
	}
	return nil, err
}

func output(env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cmd, err)
	}
	return out, nil
}

// write writes the paragraph of a component.
func (c *component) write(w io.Writer, texts *licences) error {
	text, err := read(c.dir, "LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "License", "COPYING")
	if err == nil && text == "" {
		err = errors.New("no file with its licence")
	}
	patents, err2 := read(c.dir, "PATENTS")
	notice, err3 := read(c.dir, "NOTICE", "NOTICE.txt", "NOTICE.md")
	if err = errors.Join(err, err2, err3); err != nil {
		return fmt.Errorf("%s in %s: %w", c.name, c.dir, err)
	}
	slices.Sort(c.programs)
	comment := "Linked into " + strings.Join(slices.Compact(c.programs), ", ") + ".\n"
	if c.patched {
		comment += "With the patches of tools/sshpatch/patches, which are of the p9auth authors.\n"
	}
	if notice != "" {
		comment += "Its NOTICE:\n\n" + notice
	}
	var headers string
	slices.Sort(c.files)
	for _, f := range c.files {
		src, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		for _, n := range notices(string(src)) {
			headers += n
			if conditions.MatchString(n) && !strings.Contains(n, "Licensed under the Apache License") && !strings.Contains(comment, n) {
				comment += "\nIts file " + strings.TrimPrefix(f, c.dir+"/") + " has:\n\n" + n
			}
		}
	}
	if patents != "" {
		text = strings.TrimRight(text, "\n") + "\n\n" + patents
	}
	err = paragraph(w, texts, c.name+"/*", text, comment, notice, headers)
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return nil
}

// paragraph writes one, with the holders that the licence and the other texts name.
func paragraph(w io.Writer, texts *licences, files, licence, comment string, others ...string) error {
	who := holders(strings.Join(append([]string{licence}, others...), "\n"))
	name, err := texts.name(licence, short.ReplaceAllString(files, "$1"))
	if err == nil && who == nil {
		err = errors.New("nobody is named who has the rights")
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\nFiles: %s\nCopyright: %s\nLicense: %s\n", files, strings.Join(who, "\n "), name)
	if comment != "" {
		fmt.Fprintf(w, "Comment:\n%s", indent(comment))
	}
	return nil
}

// read returns the first of the files that is there, or "".
func read(dir string, names ...string) (string, error) {
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(dir, n))
		if !errors.Is(err, os.ErrNotExist) {
			return string(b), err
		}
	}
	return "", nil
}

var (
	holder = regexp.MustCompile(`(?i)copyright\s+(?:(?:©|\(c\))\s*)?(\d{4}[-0-9, ]*?),?\s+(?:by\s+)?(\pL[^\n]*)`)
	// What a notice says beyond a name.
	conditions = regexp.MustCompile(`(?i)permission|redistribution|freely|as is`)
	// The last part of a module's path that is not a version.
	short    = regexp.MustCompile(`^(?:.*/)?([^/@]+)(?:/v\d+)?@.*$`)
	reserved = regexp.MustCompile(`(?i)[.,]?\s*all rights reserved\.?.*| and contributors.*`)
)

// holders returns years and names of those whom a text says to have the rights, each
// name once. The Free Software Foundation has rights in its licence only.
func holders(text string) (who []string) {
	seen := map[string]bool{}
	for _, m := range holder.FindAllStringSubmatch(text, -1) {
		name := strings.TrimSpace(reserved.ReplaceAllString(m[2], ""))
		key := strings.ToLower(strings.Trim(name, "., "))
		if strings.HasPrefix(key, "free software foundation") || seen[key] {
			continue
		}
		seen[key] = true
		who = append(who, strings.TrimRight(m[1], ", ")+" "+name)
	}
	return who
}

// notices returns each comment of a Go, C or assembler file that names somebody who has
// rights, from that line on, without the marks of a comment. A line of = ends a notice.
func notices(src string) (all []string) {
	var block []string
	keep := false
	end := func() {
		if keep {
			all = append(all, strings.TrimSpace(strings.Join(block, "\n"))+"\n")
		}
		block, keep = nil, false
	}
	inside := false // of /* */
	for line := range strings.Lines(src) {
		l := strings.TrimSpace(line)
		comment := inside || strings.HasPrefix(l, "//") || strings.HasPrefix(l, "/*")
		if strings.HasPrefix(l, "/*") {
			inside = true
		}
		if strings.Contains(l, "*/") {
			inside = false
		}
		text := strings.TrimRight(strings.TrimLeft(l, "/*"), "/* ")
		if !comment || strings.HasPrefix(strings.TrimSpace(text), "====") {
			end()
			continue
		}
		if !keep && holder.MatchString(text) {
			keep = true
		}
		if keep {
			block = append(block, strings.TrimPrefix(text, " "))
		}
	}
	end()
	return all
}

// licences are the texts, each once.
type licences struct {
	list []licence
}
type licence struct{ name, text string }

// name returns the name of a text in the file: the usual one of the licence, and of a
// second text of the same licence with what it is of.
func (l *licences) name(text, of string) (string, error) {
	words := strings.Join(strings.Fields(text), " ")
	for _, have := range l.list {
		if strings.Join(strings.Fields(have.text), " ") == words {
			return have.name, nil
		}
	}
	var name string
	switch has := func(s string) bool { return strings.Contains(strings.ToLower(words), strings.ToLower(s)) }; {
	case has("Apache License Version 2.0"):
		name = "Apache-2.0"
	case has("Permission is hereby granted, free of charge"):
		name = "Expat"
	case has("Permission to use, copy, modify, and distribute this software for any purpose with or without fee"):
		name = "ISC"
	case has("Redistribution and use in source and binary forms") && (has("Neither the name") || has("The name of any author may not be used")):
		name = "BSD-3-Clause"
	case has("Redistribution and use in source and binary forms"):
		name = "BSD-2-Clause"
	default:
		return "", errors.New("its licence is none that tools/licences knows")
	}
	if slices.ContainsFunc(l.list, func(have licence) bool { return have.name == name }) {
		name += "-" + of
	}
	l.list = append(l.list, licence{name, text})
	return name, nil
}

// indent makes lines of a field: a space before each, and a dot where one is empty.
func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.Trim(text, "\n") + "\n") {
		line = strings.TrimRight(strings.ReplaceAll(line, "\f", ""), " \t\r\n")
		if line == "" {
			line = "."
		}
		b.WriteString(" " + line + "\n")
	}
	return b.String()
}

func sorted(m map[string]*component) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
