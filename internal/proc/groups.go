package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ReadGroups reads the groups of a process: the real one, and then the supplementary
// ones.
func ReadGroups(pid int) ([]uint32, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return nil, err
	}
	return parseGroups(string(b))
}

func parseGroups(s string) ([]uint32, error) {
	var groups []uint32
	seen := 0
	for line := range strings.Lines(s) {
		name, v, _ := strings.Cut(line, ":")
		list := strings.Fields(v)
		switch name {
		case "Gid":
			if len(list) != 4 || seen > 0 {
				return nil, fmt.Errorf("/proc status: Gid")
			}
			list = list[:1]
		case "Groups":
		default:
			continue
		}
		seen++
		for _, f := range list {
			gid, err := strconv.ParseUint(f, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("/proc status: %s: %w", name, err)
			}
			groups = append(groups, uint32(gid))
		}
	}
	if seen != 2 {
		return nil, fmt.Errorf("/proc status: no groups")
	}
	return groups, nil
}
