// Package site does what p9auth-site(7) says: people from a
// directory, keys by a certificate authority, logs and counters collected. The
// commands are read from the page. The servers of the site, Debian's own, run in
// a testbed, with the packages that scripts/deps-site unpacks laid over its
// /usr; all of it has a network of its own, so that each listens where it would.
//
// The tests have the build tag site: make test-site.
package site
