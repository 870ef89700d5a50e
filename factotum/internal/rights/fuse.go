//go:build !capdev

package rights

// backend is what factotum needs in effect for its own capability files: nothing more, as
// it is the one that serves them.
const backend = 0
