package main

import (
	"crypto/hmac"
	"crypto/sha1"
	"strings"
)

// grantSHA1 allows a capability of the historical form.
func grantSHA1(t *T, text, key string) string {
	m := hmac.New(sha1.New, []byte(key))
	m.Write([]byte(text))
	_, err := hash.Write(m.Sum(nil))
	t.must(err)
	return text + "@" + key
}

// historical tests the form of Plan 9 and of the driver of 2009, as the Linux
// Test Project's p9auth test did: an unprivileged user, ltp, becomes root.
func historical() {
	const ltp = 1600
	run("the historical form is refused without sha1=1", func(t *T) {
		if _, err := hash.Write(make([]byte, 20)); err == nil {
			t.Errorf("caphash takes 20 bytes")
		}
		want(t, "capuse", write(ltp, "1600@0@12345"), "invalid argument")
		closeHash()
		unloaded(t)
		t.must(load("sha1=1"))
		openHash(t)
	})
	run("sha1=1: without a hash, ltp cannot become root", func(t *T) {
		want(t, "write", write(ltp, "1600@0@12345"), "operation not permitted")
	})
	run("sha1=1: with a hash it does, once", func(t *T) {
		c := grantSHA1(t, "1600@0", "12345")
		want(t, "write", write(ltp, c, c), "ok 0\noperation not permitted")
	})
	run("sha1=1: it changes the uid only", func(t *T) {
		got := output(shell(ltp, "printf %s '"+grantSHA1(t, "1600@0", "randstr")+"' >/dev/capuse; id -u; id -g; id -G; grep ^Uid /proc/self/status"))
		want(t, "id", got, "0\n1600\n1600\nUid:\t0\t0\t0\t0")
	})
	run("sha1=1: a wrong source uid is refused", func(t *T) {
		c := grantSHA1(t, "0@0", "777")
		want(t, "write", write(ltp, c), "operation not permitted")
		want(t, "another's", write(1601, grantSHA1(t, "1600@0", "888")), "operation not permitted")
	})
	run("sha1=1: what is malformed is refused, the new form still works", func(t *T) {
		for i, got := range strings.Split(write(ltp, "1600@0@", "1600@0@a\x00b", "1600@0@"+strings.Repeat("k", 257), "1600@0"), "\n") {
			want(t, []string{"no key", "a NUL", "long", "no key at all"}[i], got, "invalid argument")
		}
		want(t, "longest", write(ltp, grantSHA1(t, "1600@0", strings.Repeat("k", 256))), "ok 0")
		want(t, "new form", write(ltp, grant(t, ltp, 2000, 2000).Reveal()), "ok 2000")
	})
	run("the module is loaded without sha1 again", func(t *T) {
		closeHash()
		unloaded(t)
		t.must(load(""))
		openHash(t)
	})
}
