package config

import (
	"fmt"
	"slices"
	"strings"
)

// everyone stands in a FrontEnd line for every user who has no line of their own.
const everyone = "*"

// LocalProtos are the protocols of the programs of people who are logged in.
var LocalProtos = []string{"su", "doas", "passwd", "chkpwd"}

// parseLocal reads the line FrontEnd * SERVICE PROTO.
func parseLocal(c *Config, f []string) error {
	if len(f) != 3 || strings.Contains(f[1], "/") || f[1][0] == '.' || !slices.Contains(LocalProtos, f[2]) {
		return fmt.Errorf("want a PAM service and one of %s after %s, as in FrontEnd * su su", strings.Join(LocalProtos, ", "), everyone)
	}
	if _, ok := c.Local[f[2]]; ok {
		return fmt.Errorf("%s has a PAM service already", f[2])
	}
	c.Local[f[2]] = Binding{f[1], f[2]}
	return nil
}
