package main

import (
	"slices"
	"testing"
)

func TestOptionsAreReadAsGetoptDoes(t *testing.T) {
	o, err := parseArgs([]string{"-Ddd4p2222", "-oLogLevel=DEBUG3", "-o", "MaxStartups 3", "-tf", "conf", "-usomebody", "-E", "log",
		"--rpc", "/r", "--capuse=/c", "-g30", "-q"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"AddressFamily inet", "Port 2222", "LogLevel=DEBUG3", "MaxStartups 3", "LoginGraceTime 30"}
	if !slices.Equal(o.overrides, want) {
		t.Errorf("overrides %q", o.overrides)
	}
	if o.file != "conf" || o.user != "somebody" || o.logFile != "log" || o.debug != 2 || !o.test || !o.quiet || o.rpc != "/r" || o.capuse != "/c" {
		t.Errorf("%+v", o)
	}
	if o, err := parseArgs([]string{"-iq"}); err != nil || !o.inetd || !o.quiet {
		t.Errorf("-iq: %+v, %v", o, err)
	}
}
