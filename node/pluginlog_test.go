package node

import (
	"bytes"
	"strings"
	"testing"
)

func FuzzPluginLog(f *testing.F) {
	f.Add([]byte(`["{\"level\":\"warn\",\"time\":\"2026-01-01T00:00:00Z\",\"msg\":\"x\",\"pod\":\"a/b\"}"]`))
	f.Add([]byte(`["{\"level\":3,\"msg\":\"x\\ny\",\"a\":{\"b\":[1]}}","no"]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		lines, err := parseLog(bytes.NewReader(b))
		if err != nil && lines != nil || len(lines) > maxLines {
			t.Errorf("parseLog(%q) = %v, %v", b, lines, err)
		}
		for _, l := range lines {
			if len(l.attrs)%2 != 0 {
				t.Errorf("a name without a value in %v", l.attrs)
			}
		}
	})
}

func TestPluginLogLines(t *testing.T) {
	lines, err := parseLog(strings.NewReader(`["{\"level\":\"error\",\"time\":\"x\",\"msg\":\"m\",\"b\":1,\"a\":\"2\"}","{}","text","{\"msg\":\"n\"}"]`))
	if err != nil || len(lines) != 2 || lines[0].msg != "m" || lines[0].level.String() != "ERROR" || lines[1].level.String() != "INFO" {
		t.Fatalf("%+v, %v", lines, err)
	}
	if a := lines[0].attrs; len(a) != 4 || a[0] != "a" || a[1] != "2" || a[2] != "b" {
		t.Errorf("attributes %v", a)
	}
}
