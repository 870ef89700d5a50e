package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"p9auth/factotum/internal/config"
	"p9auth/internal/sys"
)

// PAM runs in the worker, and what its session modules do to the worker is done
// to the user's process, from outside or by its grant. Some do what can be done
// neither way. They are
// named in the log when factotum starts, since they would be silently without
// effect.

// A lostModule has no effect on the user's process.
type lostModule struct {
	name string
	only string // a file that is there only where the module does something
	what string
}

var lostModules = []lostModule{
	{"pam_apparmor.so", "/sys/kernel/security/apparmor", "the user's AppArmor hat"},
	{"pam_chroot.so", "", "a changed root directory"},
	{"pam_unshare.so", "", "private namespaces"},
}

// maxIncludes bounds the files of a service.
const maxIncludes = 32

// findLost names the modules of a service, in the directory of PAM's
// configuration, that have no effect.
func findLost(dir, service string) []lostModule {
	var found []lostModule
	files := []string{service}
	for i := 0; i < len(files) && i < maxIncludes; i++ {
		text, err := sys.ReadFile(filepath.Join(dir, files[i]), maxService)
		if err != nil {
			continue // libpam says it, when somebody logs in
		}
		for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
			line, _, _ = strings.Cut(line, "#")
			f := strings.Fields(line)
			if len(f) < 2 {
				continue
			}
			include := ""
			switch {
			case f[0] == "@include":
				include = f[1]
			case len(f) > 2 && (f[1] == "include" || f[1] == "substack"):
				include = f[2]
			}
			if include != "" {
				if !slices.Contains(files, include) && !strings.Contains(include, "/") {
					files = append(files, include)
				}
				continue
			}
			for _, m := range lostModules {
				if !slices.ContainsFunc(f, func(w string) bool { return filepath.Base(w) == m.name }) || slices.Contains(found, m) {
					continue
				}
				if _, err := os.Stat(m.only); m.only == "" || err == nil {
					found = append(found, m)
				}
			}
		}
	}
	return found
}

// maxService bounds a file of PAM's configuration, in bytes.
const maxService = 256 << 10

// warnOfLost logs which configured modules have no effect.
func warnOfLost(c config.Config, log *slog.Logger) {
	dir := c.PAMConfDir
	if dir == "" {
		dir = "/etc/pam.d"
	}
	seen := map[string]bool{}
	for _, f := range c.FrontEnds {
		if seen[f.Service] {
			continue
		}
		seen[f.Service] = true
		for _, m := range findLost(dir, f.Service) {
			log.Warn("a PAM module cannot work here", "service", f.Service, "module", m.name, "lost", m.what)
		}
	}
}
