package capuse

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Report reads what the program redeem (internal/become/redeem.c) says of its failure,
// until its end. The error is nil once it has executed the program of the grant.
func Report(r io.Reader) error {
	var said [4]byte
	if _, err := io.ReadFull(r, said[:]); err != nil {
		return nil
	}
	step, ok := map[byte]string{'r': "read the capability for", 'o': "open", 'w': "write", 'n': "read", 'x': "execute what is served by"}[said[0]]
	if !ok {
		return fmt.Errorf("redeem: %q", said)
	}
	file, w := find(DefaultPath)
	return w.explain(file, fmt.Errorf("%s %s: %w", step, file, unix.Errno(said[1])<<8|unix.Errno(said[2])))
}
