package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const bsd = `Copyright (c) 2010 Somebody Ltd. All rights reserved.

Redistribution and use in source and binary forms, with or without
modification, are permitted provided that ...
`

func TestHoldersAreNamedOnceWithoutWords(t *testing.T) {
	got := holders(`// Copyright (c) 2010 the Go-FUSE Authors. All rights reserved.
		Copyright 2016 the Go-FUSE Authors. All rights reserved.
		/* Copyright © 1994-1999 Lucent Technologies Inc. All rights reserved.
		Copyright 1984, 1987, 2000 by Stephen L. Moshier
		Copyright (C) 1989, 1991 Free Software Foundation, Inc.,
		retain the above copyright notice, this list of conditions
		Copyright 2015, Michael Steinert <mike@example.com>`)
	want := []string{"2010 the Go-FUSE Authors", "1994-1999 Lucent Technologies Inc", "1984, 1987, 2000 Stephen L. Moshier", "2015 Michael Steinert <mike@example.com>"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNoticesAreCommentsFromTheHolderOn(t *testing.T) {
	got := notices(`// What is here.
//
// Copyright 1993 by Sun
//   freely granted
// ====
// more
package x // Copyright 2000 Nobody's comment of its own

/* Derived from
 * libkern
 *
 * Copyright (c) 1994 Lucent
 * Permission is granted
 */
var s = "Copyright 2001 Text of a program"
`)
	want := []string{"Copyright 1993 by Sun\n  freely granted\n", "Copyright (c) 1994 Lucent\nPermission is granted\n"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTextsAreWrittenOnceAndNamedByTheLicence(t *testing.T) {
	var l licences
	for _, c := range []struct{ text, of, want string }{
		{bsd, "one", "BSD-2-Clause"},
		{strings.ReplaceAll(bsd, "\n", "\n   "), "two", "BSD-2-Clause"},
		{strings.ReplaceAll(bsd, "2010", "2011"), "three", "BSD-2-Clause-three"},
		{bsd + "Neither the name of ...", "four", "BSD-3-Clause"},
	} {
		if got, err := l.name(c.text, c.of); err != nil || got != c.want {
			t.Errorf("of %s: %s, %v; want %s", c.of, got, err, c.want)
		}
	}
	if len(l.list) != 3 {
		t.Errorf("%d texts", len(l.list))
	}
	if name, err := l.name("All rights are mine.", "five"); err == nil {
		t.Errorf("an unknown licence is %s", name)
	}
}

func TestAComponentWithoutALicenceIsAnError(t *testing.T) {
	dir := t.TempDir()
	c := component{name: "example.com/m@v1", dir: dir, programs: []string{"b", "a", "b"}}
	var out strings.Builder
	if err := c.write(&out, &licences{}); err == nil || !strings.Contains(err.Error(), "no file with its licence") {
		t.Errorf("no error, or another one: %v", err)
	}
	for name, text := range map[string]string{"LICENSE": bsd, "NOTICE": "Take note.\n\nOf this.\n", "x.go": "// Copyright 2012 Else\n// Permission is granted\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c.files = []string{dir + "/x.go"}
	out.Reset()
	if err := c.write(&out, &licences{}); err != nil {
		t.Fatal(err)
	}
	want := `
Files: example.com/m@v1/*
Copyright: 2010 Somebody Ltd
 2012 Else
License: BSD-2-Clause
Comment:
 Linked into a, b.
 Its NOTICE:
 .
 Take note.
 .
 Of this.
 .
 Its file x.go has:
 .
 Copyright 2012 Else
 Permission is granted
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}
