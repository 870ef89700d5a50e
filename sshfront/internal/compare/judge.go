// Package compare says what would change for people who log in by SSH if sshfront
// took sshd's place: it holds what "sshd -T" prints to sshfront's settings, for each user,
// group and address that a Match names.
package compare

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Kind is what a difference does.
type Kind int

const (
	// Differs: nobody gets in who did not, and nobody is kept out.
	Differs Kind = iota
	// Weaker: something may be permitted that sshd forbids.
	Weaker
	// ShutsOut: something that sshd permits is not, so somebody may be shut out.
	ShutsOut
)

func (k Kind) String() string { return [...]string{"differs", "weaker", "shuts out"}[k] }

// Dump is the output of "sshd -T" by keywords in lower case: the values of each,
// sorted where their order says nothing.
type Dump map[string][]string

// ParseDump reads the output of "sshd -T".
func ParseDump(text string) Dump {
	d := Dump{}
	for l := range strings.Lines(text) {
		if k, v, _ := strings.Cut(strings.TrimRight(l, "\n"), " "); k != "" {
			d[k] = append(d[k], v)
		}
	}
	for k, v := range d {
		if sorted[k] {
			slices.Sort(v)
		}
	}
	return d
}

// sorted are keywords of several values in any order.
var sorted = set("acceptenv allowusers allowgroups denyusers denygroups hostkey subsystem setenv")

// elsewhere are keywords that the socket unit has in place of the configuration.
var elsewhere = set("port listenaddress addressfamily")

// harmless are keywords that decide about nobody's login.
var harmless = set("channeltimeout clientalivecountmax clientaliveinterval compression debianbanner fingerprinthash " +
	"ipqos loglevel logverbose modulifile persourcemaxstartups " +
	"maxstartups persourcenetblocksize persourcepenalties persourcepenaltyexemptlist pidfile printlastlog printmotd banner " +
	"rekeylimit sshdauthpath sshdsessionpath syslogfacility tcpkeepalive unusedconnectiontimeout " +
	"versionaddendum x11displayoffset xauthlocation gssapicleanupcredentials gssapidelegatecredentials gssapistrictacceptorcheck " +
	"gssapistorecredentialsonrekey kerberosorlocalpasswd kerberosticketcleanup ignoreuserknownhosts ignorerhosts")

// permits has the values of keywords in the order of what they permit, the least first.
// Those with one rank permit different things.
var permits = map[string]map[string]int{
	"permitrootlogin": {"no": 0, "forced-commands-only": 1, "without-password": 2, "prohibit-password": 2, "yes": 3},
}

func init() {
	for k := range set("passwordauthentication kbdinteractiveauthentication pubkeyauthentication permitemptypasswords " +
		"permittty permituserrc permituserenvironment x11forwarding allowagentforwarding exposeauthinfo gssapiauthentication " +
		"hostbasedauthentication kerberosauthentication gatewayports allowtcpforwarding allowstreamlocalforwarding " +
		"permittunnel gssapikeyexchange streamlocalbindunlink") {
		permits[k] = map[string]int{"no": 0, "yes": 9}
	}
	for k := range set("strictmodes disableforwarding refuseconnection x11uselocalhost") {
		permits[k] = map[string]int{"yes": 0, "no": 9}
	}
}

// bounds are numbers of which more is weaker; where zero is true, 0 is no bound.
var bounds = map[string]bool{"maxauthtries": false, "maxsessions": false, "logingracetime": true}

// least are numbers of which less is weaker.
var least = set("requiredrsasize")

// algorithms are lists of names, by commas.
var algorithms = set("casignaturealgorithms ciphers hostbasedacceptedalgorithms hostkeyalgorithms kexalgorithms macs pubkeyacceptedalgorithms")

// restrictions forbid what would be permitted without them; "none" is without.
var restrictions = set("allowusers allowgroups denyusers denygroups authenticationmethods forcecommand chrootdirectory " +
	"permitopen permitlisten revokedkeys pubkeyauthoptions")

// Judge says what it does that a keyword has the values ours in place of sshd; either
// may be nil. defaults: each has its server's own defaults. What is not known to be
// harmless counts as weaker.
func Judge(keyword string, sshd, ours []string, defaults bool) Kind {
	switch {
	case harmless[keyword]:
		return Differs
	case defaults && algorithms[keyword]:
		return Differs // as an upgrade of OpenSSH changes them
	case algorithms[keyword]:
		return judgeSets(names(sshd), names(ours))
	case restrictions[keyword]:
		if absent(sshd) {
			return ShutsOut
		}
		return Weaker
	}
	if len(sshd) == 1 && len(ours) == 1 {
		if least[keyword] {
			return judgeNumbers(ours[0], sshd[0], false)
		}
		if zero, ok := bounds[keyword]; ok {
			return judgeNumbers(sshd[0], ours[0], zero)
		}
		if order := permits[keyword]; order != nil {
			a, okA := order[sshd[0]]
			b, okB := order[ours[0]]
			switch {
			case okA && okB && b > a, okA && !okB && a == 0, !okA && okB && b == 9:
				return Weaker
			case okA && okB && b < a, okA && !okB && a == 9, !okA && okB && b == 0:
				return ShutsOut
			}
			return Weaker
		}
	}
	switch {
	case absent(ours):
		return ShutsOut // a source of keys, a subsystem, a variable
	case keyword == "hostkey":
		return ShutsOut // clients refuse a key that they do not know
	}
	return Weaker
}

func absent(v []string) bool { return len(v) == 0 || len(v) == 1 && (v[0] == "none" || v[0] == "any") }

// judgeSets: more is weaker, and that counts first.
func judgeSets(sshd, ours []string) Kind {
	for _, n := range ours {
		if !slices.Contains(sshd, n) {
			return Weaker
		}
	}
	for _, n := range sshd {
		if !slices.Contains(ours, n) {
			return ShutsOut
		}
	}
	return Differs // in their order
}

func judgeNumbers(sshd, ours string, zero bool) Kind {
	a, errA := strconv.Atoi(sshd)
	b, errB := strconv.Atoi(ours)
	unlimited := func(n int) bool { return zero && n == 0 }
	switch {
	case errA != nil || errB != nil:
		return Weaker
	case unlimited(b) || b > a && !unlimited(a):
		return Weaker
	}
	return ShutsOut
}

// names are those of a list by commas.
func names(values []string) []string {
	return strings.Split(strings.Join(values, ","), ",")
}

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

// A Difference is a keyword that sshd and sshfront have with other values.
type Difference struct {
	Keyword    string
	Kind       Kind
	SSHD, Ours []string
	Who        []string // for which connections; none: for all
}

// Side is what one of the servers prints for a connection, and for an empty
// configuration.
type Side struct{ Now, Default Dump }

// Compare returns the differences for one connection, by keywords. Where one of the
// servers prints no such keyword, and the other its default, there is none: the other's
// parser takes only values that ask for what it does anyway.
func Compare(sshd, ours Side) []Difference {
	keys := maps.Clone(sshd.Now)
	maps.Copy(keys, ours.Now)
	var found []Difference
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		a, b := sshd.Now[k], ours.Now[k]
		sameAsDefault := slices.Equal(a, sshd.Default[k]) && slices.Equal(b, ours.Default[k])
		switch {
		case elsewhere[k], slices.Equal(a, b):
			continue
		case sameAsDefault && (len(a) == 0 || len(b) == 0):
			continue // one of them knows no such keyword, or prints it only where it is set
		case sameAsDefault && harmless[k]:
			continue
		}
		found = append(found, Difference{k, Judge(k, a, b, sameAsDefault), a, b, nil})
	}
	return found
}
