// Package curl is a small web client with the options and exit codes of the well-known one, for pods on machines without it.
package curl

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// options is a parsed command line.
type options struct {
	urls                                     []string
	method, data, output, writeOut, user     string
	header                                   http.Header
	host                                     string
	silent, showError, fail, verbose         bool
	include, head, follow, insecure, h2prior bool
	maxTime, connectTimeout                  time.Duration
	retries                                  int
}

// flag describes one option: its long name, and what to do with its value (nil set means it has none).
type flag struct {
	long  string
	on    func(*options)
	value func(*options, string) error
}

func flags() map[string]flag {
	str := func(to func(*options) *string) func(*options, string) error {
		return func(o *options, v string) error { *to(o) = v; return nil }
	}
	seconds := func(to func(*options) *time.Duration) func(*options, string) error {
		return func(o *options, v string) error {
			f, err := strconv.ParseFloat(v, 64)
			if err != nil || f < 0 {
				return fmt.Errorf("%q is not a number of seconds", v)
			}
			*to(o) = time.Duration(f * float64(time.Second))
			return nil
		}
	}
	body := func(o *options, v string) error {
		if o.data != "" {
			o.data += "&"
		}
		o.data += v
		return nil
	}
	return map[string]flag{
		"s": {long: "silent", on: func(o *options) { o.silent = true }},
		"S": {long: "show-error", on: func(o *options) { o.showError = true }},
		"f": {long: "fail", on: func(o *options) { o.fail = true }},
		"v": {long: "verbose", on: func(o *options) { o.verbose = true }},
		"i": {long: "include", on: func(o *options) { o.include = true }},
		"I": {long: "head", on: func(o *options) { o.head = true }},
		"L": {long: "location", on: func(o *options) { o.follow = true }},
		"k": {long: "insecure", on: func(o *options) { o.insecure = true }},
		"g": {long: "globoff", on: func(*options) {}},
		"N": {long: "no-buffer", on: func(*options) {}},
		"#": {long: "http2-prior-knowledge", on: func(o *options) { o.h2prior = true }},
		"X": {long: "request", value: str(func(o *options) *string { return &o.method })},
		"o": {long: "output", value: str(func(o *options) *string { return &o.output })},
		"w": {long: "write-out", value: str(func(o *options) *string { return &o.writeOut })},
		"u": {long: "user", value: str(func(o *options) *string { return &o.user })},
		"d": {long: "data", value: body},
		"D": {long: "data-raw", value: body},
		"m": {long: "max-time", value: seconds(func(o *options) *time.Duration { return &o.maxTime })},
		"c": {long: "connect-timeout", value: seconds(func(o *options) *time.Duration { return &o.connectTimeout })},
		"A": {long: "user-agent", value: func(o *options, v string) error { o.header.Set("User-Agent", v); return nil }},
		"r": {long: "retry", value: func(o *options, v string) (err error) {
			o.retries, err = strconv.Atoi(v)
			return err
		}},
		"H": {long: "header", value: func(o *options, v string) error {
			name, value, ok := strings.Cut(v, ":")
			if !ok {
				return fmt.Errorf("header %q has no colon", v)
			}
			value = strings.TrimSpace(value)
			if strings.EqualFold(name, "host") {
				o.host = value
				return nil
			}
			o.header.Add(name, value)
			return nil
		}},
	}
}

// onlyLong are keys above that stand for a long name only.
const onlyLong = "#Dcr"

// parse reads a command line as curl does: short options may be joined and may hold their value.
func parse(args []string) (*options, error) {
	o := &options{header: http.Header{"User-Agent": {"curl/8 (ambit)"}, "Accept": {"*/*"}}}
	short := flags()
	long := map[string]flag{}
	for _, f := range short {
		long[f.long] = f
	}
	next := func(i *int, name string) (string, error) {
		if *i++; *i >= len(args) {
			return "", fmt.Errorf("option %s: requires parameter", name)
		}
		return args[*i], nil
	}
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case strings.HasPrefix(a, "--"):
			f, ok := long[a[2:]]
			if !ok {
				return nil, fmt.Errorf("option %s: is unknown", a)
			}
			if f.value == nil {
				f.on(o)
				continue
			}
			v, err := next(&i, a)
			if err == nil {
				err = f.value(o, v)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", a, err)
			}
		case strings.HasPrefix(a, "-") && len(a) > 1:
			if err := parseShort(o, short, a[1:], func() (string, error) { return next(&i, a) }); err != nil {
				return nil, err
			}
		default:
			o.urls = append(o.urls, a)
		}
	}
	if len(o.urls) == 0 {
		return nil, fmt.Errorf("no URL specified")
	}
	return o, nil
}

func parseShort(o *options, short map[string]flag, letters string, next func() (string, error)) error {
	for letters != "" {
		name := letters[:1]
		letters = letters[1:]
		f, ok := short[name]
		if !ok || strings.Contains(onlyLong, name) {
			return fmt.Errorf("option -%s: is unknown", name)
		}
		if f.value == nil {
			f.on(o)
			continue
		}
		v := letters
		if v == "" {
			var err error
			if v, err = next(); err != nil {
				return err
			}
		}
		return f.value(o, v)
	}
	return nil
}
