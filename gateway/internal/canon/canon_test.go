package canon

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestPathHasOneSpelling(t *testing.T) {
	for _, c := range []struct {
		name, in, base, decode string // "" is refused
	}{
		{"plain", "/productpage", "/productpage", "/productpage"},
		{"dot segments", "/public/../admin", "/admin", "/admin"},
		{"above the root", "/../../admin", "/admin", "/admin"},
		{"trailing dots", "/a/b/..", "/a/", "/a/"},
		{"escaped dots", "/public/%2e%2E/admin", "/admin", "/admin"},
		{"escaped letter", "/%61dmin", "/admin", "/admin"},
		{"double escape stays", "/%252e%252e/admin", "/%252e%252e/admin", "/%252e%252e/admin"},
		{"double slash", "//admin", "//admin", "/admin"},
		{"backslash", `\admin\x`, "/admin/x", "/admin/x"},
		{"backslashes", `\\admin`, "//admin", "/admin"},
		{"escaped slash", "/a%2Fb%5cc", "/a%2Fb%5cc", "/a/b/c"},
		{"escaped slash around dots", "/a%2f..%2fb", "/a%2f..%2fb", "/b"},
		{"fragment", "/user/profile#x", "", ""},
		{"escaped fragment stays", "/admin%23", "/admin%23", "/admin%23"},
		{"escaped question stays", "/admin%3f", "/admin%3f", "/admin%3f"},
		{"matrix parameter on dots", "/public/..;/admin", "", ""},
		{"matrix parameter elsewhere", "/a;v=1/b", "/a;v=1/b", "/a;v=1/b"},
		{"NUL", "/a%00", "", ""},
		{"bad escape", "/a%zz", "", ""},
		{"cut escape", "/a%2", "", ""},
		{"space", "/a b", "", ""},
		{"control", "/a\x01", "", ""},
		{"raw UTF-8", "/é", "/%C3%A9", "/%C3%A9"},
		{"braces", "/{x}", "/%7Bx%7D", "/%7Bx%7D"},
		{"relative", "admin", "", ""},
		{"empty", "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for mode, want := range map[Mode]string{Base: c.base, DecodeAndMergeSlashes: c.decode} {
				got, err := Path(c.in, mode)
				if got != want || (err == nil) != (want != "") {
					t.Errorf("Path(%q, %d) = %q, %v; want %q", c.in, mode, got, err, want)
				}
			}
		})
	}
}

func TestHostHasOneSpelling(t *testing.T) {
	for _, c := range []struct {
		in, name string
		port     uint16
		ok       bool
	}{
		{"Secret.EXAMPLE.com", "secret.example.com", 0, true},
		{"secret.example.com.", "secret.example.com", 0, true},
		{"secret.example.com.:443", "secret.example.com", 443, true},
		{"a:0443", "a", 443, true},
		{"a:", "a", 0, true},
		{"[2001:DB8::1]:80", "2001:db8::1", 80, true},
		{"[2001:db8:0::1]", "2001:db8::1", 0, true},
		{"10.0.0.1:8080", "10.0.0.1", 8080, true},
		{"", "", 0, true},
		{"u@a", "", 0, false},
		{"a:b", "", 0, false},
		{"a:-1", "", 0, false},
		{"a:0", "", 0, false},
		{"a:65536", "", 0, false},
		{"a b", "", 0, false},
		{"a/b", "", 0, false},
		{"a..b", "", 0, false},
		{"a.:80:80", "", 0, false},
		{"::1", "", 0, false},
		{"[1.2.3.4]", "", 0, false},
		{"[fe80::1%eth0]", "", 0, false},
		{"a%00", "", 0, false},
		{"münchen.de", "", 0, false},
		{strings.Repeat("a", 300), "", 0, false},
	} {
		name, port, err := Host(c.in)
		if name != c.name || port != c.port || (err == nil) != c.ok {
			t.Errorf("Host(%q) = %q, %d, %v; want %q, %d, ok %v", c.in, name, port, err, c.name, c.port, c.ok)
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/%2e%2e/x", `/\..\`, "/..;/", "/%", "/a%2f..%5c", "//..//."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		for _, mode := range []Mode{Base, MergeSlashes, DecodeAndMergeSlashes} {
			p, err := Path(raw, mode)
			if err != nil {
				continue
			}
			if again, err := Path(p, mode); err != nil || again != p {
				t.Fatalf("Path(%q) = %q, and again %q, %v", raw, p, again, err)
			}
			for _, s := range strings.Split(p, "/") {
				if s == "." || s == ".." {
					t.Fatalf("Path(%q) = %q keeps a dot segment", raw, p)
				}
			}
			plain, err := url.PathUnescape(p)
			if err != nil {
				t.Fatalf("Path(%q) = %q: %v", raw, p, err)
			}
			// A backend that cleans paths itself finds nothing left to clean.
			if clean := path.Clean(plain); mode == DecodeAndMergeSlashes && strings.TrimSuffix(plain, "/") != strings.TrimSuffix(clean, "/") {
				t.Fatalf("Path(%q) = %q, which a backend would clean to %q", raw, p, clean)
			}
			if w := (&url.URL{Path: plain, RawPath: p}).EscapedPath(); w != p {
				t.Fatalf("net/url writes %q as %q", p, w)
			}
		}
	})
}

func FuzzHost(f *testing.F) {
	for _, s := range []string{"a", "A.b.:080", "[::1]:1", "[::ffff:1.2.3.4]", "a@b", ":80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		name, _, err := Host(in)
		if err != nil {
			return
		}
		if name != strings.ToLower(name) || strings.ContainsAny(name, "@/ \t\r\n%?#\\") {
			t.Fatalf("Host(%q) = %q", in, name)
		}
		back := name
		if strings.Contains(name, ":") {
			back = "[" + name + "]"
		}
		if again, _, err := Host(back); err != nil || again != name {
			t.Fatalf("Host(%q) = %q, and again %q, %v", in, name, again, err)
		}
	})
}
