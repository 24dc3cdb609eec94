package cli

import "testing"

func TestLogFilter(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"debug", "debug"},
		{"warning", "warn"},
		{"critical", "error"},
		{"access:debug,info", "access=debug,info"},
		{"ztunnel::proxy=trace", "ztunnel::proxy=trace"},
		{"loud", ""},
		{"=debug", ""},
		{"", ""},
		{"a=b", ""},
	} {
		got, err := logFilter(c.in)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, c := range []struct {
		f    zcFlags
		args []string
		ok   bool
	}{
		{zcFlags{output: "short"}, nil, true},
		{zcFlags{output: "yaml", node: "n"}, nil, true},
		{zcFlags{output: "wide"}, nil, false},
		{zcFlags{file: "x", node: "n"}, nil, false},
		{zcFlags{file: "x"}, []string{"pod"}, false},
		{zcFlags{node: "n"}, []string{"pod"}, false},
	} {
		if err := c.f.check(c.args); (err == nil) != c.ok {
			t.Errorf("%+v %v: %v", c.f, c.args, err)
		}
	}
}
