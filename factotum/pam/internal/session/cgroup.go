package session

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"p9auth/factotum/pam/internal/log"
)

// cgroups are a process's control groups by hierarchy, as /proc/PID/cgroup names
// it: the controllers of a hierarchy of version 1, such as name=systemd, or "" for
// version 2. See cgroups(7).
type cgroups map[string]string

func parseCgroups(text string) cgroups {
	c := cgroups{}
	for line := range strings.Lines(text) {
		if f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(f) == 3 {
			c[f[1]] = f[2]
		}
	}
	return c
}

// cgroupDir finds the directory of a group of a hierarchy by the lines of
// /proc/self/mountinfo: version 2 may be mounted at /sys/fs/cgroup, or below it
// beside version 1.
func cgroupDir(mountinfo, controllers, path string) (string, bool) {
	for line := range strings.Lines(mountinfo) {
		place, what, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		// ID parent device root mountpoint options... - type source options
		p, w := strings.Fields(place), strings.Fields(what)
		if !ok || len(p) < 5 || len(w) < 3 {
			continue
		}
		switch {
		case controllers == "" && w[0] == "cgroup2":
		case controllers != "" && w[0] == "cgroup" && containsAll(strings.Split(w[2], ","), strings.Split(controllers, ",")):
		default:
			continue
		}
		// A mount may show a part of the hierarchy.
		if rel, err := filepath.Rel(p[3], path); err == nil && filepath.IsLocal(rel) {
			return filepath.Join(p[4], rel), true
		}
	}
	return "", false
}

func containsAll(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// changed returns the directories of the groups that differ from before. It leaves
// out a group whose hierarchy is not mounted here, since nothing can be moved into
// it, and logs that.
func (c cgroups) changed(before cgroups) []string {
	var dirs []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		log.Warn("control groups", "error", err.Error())
	}
	for controllers, path := range c {
		if path == before[controllers] {
			continue
		}
		dir, ok := cgroupDir(string(mounts), controllers, path)
		if !ok {
			log.Warn("the session's process stays in its control group, as the hierarchy is not mounted", "controllers", controllers, "group", path)
			continue
		}
		dirs = append(dirs, dir)
	}
	return dirs
}
