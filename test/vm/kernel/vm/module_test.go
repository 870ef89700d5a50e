package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

const moduleDir = "../../../../kernel/p9auth/"

// TestAnEntryGoesBackToItsOwnCache: kfree and its like are for kmalloc's memory. Kernels
// with SLUB let them free an object of a kmem_cache, so that none that is booted tells.
func TestAnEntryGoesBackToItsOwnCache(t *testing.T) {
	b, err := os.ReadFile(moduleDir + "p9auth.c")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`struct p9_entry ((?:\*\w+(?: = NULL)?(?:, )?)+)`)
	name := regexp.MustCompile(`\*(\w+)`)
	entries, given := 0, 0
	// A function ends with a brace at the beginning of a line.
	for _, f := range strings.Split(string(b), "\n}\n") {
		for _, list := range names.FindAllStringSubmatch(f, -1) {
			for _, n := range name.FindAllStringSubmatch(list[1], -1) {
				entries++
				if bad := regexp.MustCompile(`\bkv?z?free\w*\(` + n[1] + `\b`).FindString(f); bad != "" {
					t.Errorf("an entry is freed by %s", bad)
				}
				given += strings.Count(f, "kmem_cache_free(p9_entry_cache, "+n[1]+")")
			}
		}
	}
	if entries < 5 || given != 1 {
		t.Errorf("%d entries are found, and %d are given back to the cache", entries, given)
	}
}

func TestDKMSBuildsForTheKernelsThatTheModuleIsFor(t *testing.T) {
	b, err := os.ReadFile(moduleDir + "dkms.conf")
	if err != nil {
		t.Fatal(err)
	}
	setting := func(name string) *regexp.Regexp {
		m := regexp.MustCompile(`(?m)^` + name + `="(.*)"$`).FindSubmatch(b)
		if m == nil {
			t.Fatalf("dkms.conf has no %s", name)
		}
		return regexp.MustCompile(string(m[1]))
	}
	for _, c := range []struct {
		name string
		want map[string]bool
	}{
		{"BUILD_EXCLUSIVE_KERNEL", map[string]bool{
			"4.19.0-27-amd64": false, "5.10.0-39-amd64": false, "5.19.17": false, "6.0.12": false, "6.1.0-50-cloud-amd64": true,
			"6.12.95+deb12-arm64": true, "6.18.3": true, "7.3.4+deb13-amd64": true, "10.0.1": true,
		}},
		{"BUILD_EXCLUSIVE_ARCH", map[string]bool{"x86_64": true, "aarch64": true, "i686": false, "riscv64": false, "ppc64le": false}},
	} {
		expr := setting(c.name)
		for value, want := range c.want {
			if expr.MatchString(value) != want {
				t.Errorf("%s takes %s: %t", c.name, value, !want)
			}
		}
	}
}
