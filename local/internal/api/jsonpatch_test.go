package api

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestJSONPatch(t *testing.T) {
	const doc = `{"a":{"b":1,"c/d":[1,2,3],"~":"x"},"n":12345678901234567}`
	for _, c := range []struct{ patch, want, fails string }{
		{`[{"op":"add","path":"/a/e","value":null}]`, `{"a":{"b":1,"c/d":[1,2,3],"e":null,"~":"x"},"n":12345678901234567}`, ""},
		{`[{"op":"add","path":"/a/c~1d/1","value":9},{"op":"add","path":"/a/c~1d/-","value":8}]`, `{"a":{"b":1,"c/d":[1,9,2,3,8],"~":"x"},"n":12345678901234567}`, ""},
		{`[{"op":"remove","path":"/a/c~1d/0"},{"op":"remove","path":"/a/~0"}]`, `{"a":{"b":1,"c/d":[2,3]},"n":12345678901234567}`, ""},
		{`[{"op":"replace","path":"/a/b","value":{"x":[]}}]`, `{"a":{"b":{"x":[]},"c/d":[1,2,3],"~":"x"},"n":12345678901234567}`, ""},
		{`[{"op":"move","from":"/a/b","path":"/m"},{"op":"copy","from":"/a","path":"/k"}]`, `{"a":{"c/d":[1,2,3],"~":"x"},"k":{"c/d":[1,2,3],"~":"x"},"m":1,"n":12345678901234567}`, ""},
		{`[{"op":"test","path":"/a/c~1d","value":[1,2,3]},{"op":"replace","path":"","value":{}}]`, `{}`, ""},
		{`[{"op":"test","path":"/a/b","value":2}]`, "", "test of /a/b fails"},
		{`[{"op":"remove","path":"/z"}]`, "", `there is no "z"`},
		{`[{"op":"replace","path":"/a/z","value":1}]`, "", `there is no "z"`},
		{`[{"op":"add","path":"/a/c~1d/7","value":1}]`, "", "is no place in a list"},
		{`[{"op":"add","path":"/a/c~1d/01","value":1}]`, "", "is no place in a list"},
		{`[{"op":"remove","path":"/a/c~1d/-"}]`, "", "is no place in a list"},
		{`[{"op":"add","path":"/a/b/x","value":1}]`, "", "nothing below"},
		{`[{"op":"add","path":"/a/y"}]`, "", "has no value"},
		{`[{"op":"add","value":1}]`, "", "has no path"},
		{`[{"op":"add","path":"a","value":1}]`, "", "does not begin with /"},
		{`[{"op":"move","from":"/a","path":"/a/x"}]`, "", "cannot move into itself"},
		{`[{"op":"jump","path":"/a"}]`, "", `"jump" is no operation`},
		{`{"op":"add"}`, "", "is a list of operations"},
	} {
		got, err := jsonPatch([]byte(doc), []byte(c.patch))
		switch {
		case c.fails != "":
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: %s, %v; want %q", c.patch, got, err, c.fails)
			}
		case err != nil || string(got) != c.want:
			t.Errorf("%s: %s, %v; want %s", c.patch, got, err, c.want)
		}
	}
}

func FuzzJSONPatch(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":2}]}`), []byte(`[{"op":"copy","from":"/a","path":"/a/1/c"},{"op":"move","from":"/a/0","path":"/x"}]`))
	f.Fuzz(func(t *testing.T, doc, patch []byte) {
		if out, err := jsonPatch(doc, patch); err == nil && !json.Valid(out) {
			t.Errorf("not JSON: %s", out)
		}
	})
}
