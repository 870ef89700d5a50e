package sshdconf

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Dump prints the settings in the format of "sshd -T": one keyword in lower
// case and its value a line, keywords with several values once for each. Of the
// accepted keywords it prints those that have a value here; lists without an
// entry are left out, as sshd leaves them.
func (s *Settings) Dump(w io.Writer) error {
	b := bufio.NewWriter(w)
	for _, k := range table() {
		if k.show == nil {
			continue
		}
		for _, v := range k.show(s) {
			fmt.Fprintf(b, "%s %s\n", strings.ToLower(k.name), v)
		}
	}
	return b.Flush()
}
