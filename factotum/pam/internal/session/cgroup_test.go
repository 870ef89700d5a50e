package session

import "testing"

// The mounts are those of systemd 252 with systemd.unified_cgroup_hierarchy=1
// and =0, and of a container that is shown its own part.
func TestTheDirectoryOfAControlGroup(t *testing.T) {
	const (
		unified = "24 1 0:23 / /proc rw - proc proc rw\n30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
		hybrid  = "30 22 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,size=4096k,mode=755\n" +
			"31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate\n" +
			"32 30 0:28 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup rw,xattr,name=systemd\n" +
			"35 30 0:32 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:15 - cgroup cgroup rw,cpu,cpuacct\n"
		part = "50 40 0:28 /docker/abc /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
	)
	const scope = "/user.slice/user-1000.slice/session-1.scope"
	for _, c := range []struct{ mounts, controllers, path, want string }{
		{unified, "", scope, "/sys/fs/cgroup" + scope},
		{hybrid, "", scope, "/sys/fs/cgroup/unified" + scope},
		{hybrid, "name=systemd", scope, "/sys/fs/cgroup/systemd" + scope},
		{hybrid, "cpuacct", "/a", "/sys/fs/cgroup/cpu,cpuacct/a"},
		{hybrid, "cpu,cpuacct", "/", "/sys/fs/cgroup/cpu,cpuacct"},
		{hybrid, "memory", "/a", ""},
		{unified, "name=systemd", scope, ""},
		{part, "name=systemd", "/docker/abc/x", "/sys/fs/cgroup/systemd/x"},
		{part, "name=systemd", "/docker/abcd", ""},
		{part, "name=systemd", "/docker", ""},
		{"", "", scope, ""},
	} {
		if got, ok := cgroupDir(c.mounts, c.controllers, c.path); got != c.want || ok != (c.want != "") {
			t.Errorf("%s %s: %q, not %q", c.controllers, c.path, got, c.want)
		}
	}
}

func TestParseCgroups(t *testing.T) {
	got := parseCgroups("9:name=systemd:/a:b\n2:cpu,cpuacct:/\n0::/c\n\nnonsense\n")
	if len(got) != 3 || got["name=systemd"] != "/a:b" || got["cpu,cpuacct"] != "/" || got[""] != "/c" {
		t.Errorf("%q", got)
	}
}
