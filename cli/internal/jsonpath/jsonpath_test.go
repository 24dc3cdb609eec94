package jsonpath_test

import (
	"encoding/json"
	"testing"

	"github.com/ambit-mesh/ambit/cli/internal/jsonpath"
)

const pods = `{"kind":"List","items":[
	{"metadata":{"name":"a","labels":{"app.kubernetes.io/name":"x"}},"spec":{"ports":[{"name":"http","port":80},{"name":"tls","port":443}]}},
	{"metadata":{"name":"b"},"spec":{"ready":true}}]}`

func value(t testing.TB) any {
	var v any
	if err := json.Unmarshal([]byte(pods), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestExpand(t *testing.T) {
	for template, want := range map[string]string{
		`{.items[0].metadata.name}`:                                       "a",
		`{.items[*].metadata.name}`:                                       "a b",
		`{.items[-1].metadata.name}`:                                      "b",
		`{$.kind}: {.items[5].metadata.name}`:                             "List: ",
		`{.items[0].metadata.labels.app\.kubernetes\.io/name}`:            "x",
		`{.items[0].metadata.labels['app\.kubernetes\.io/name']}`:         "x",
		`{.items[0].spec.ports[1].port}`:                                  "443",
		`{.items[1].spec}`:                                                `{"ready":true}`,
		`{range .items[*]}{.metadata.name}{"\t"}{.spec.ready}{"\n"}{end}`: "a\t\nb\ttrue\n",
		`{range .items[0].spec.ports[*]}{@.name}={.port};{end}!`:          "http=80;tls=443;!",
		`{.items[0].spec.ports[0].*}`:                                     "http 80",
		`{.items[?(@.metadata.name=="b")].spec.ready}`:                    "true",
		`{.items[*].spec.ports[?(@.port>80)].name}`:                       "tls",
		`{.items[*].spec.ports[?(@.name!='tls')].port}`:                   "80",
		`{.items[?(@.spec.ready)].metadata.name}`:                         "b",
		`{.items[?(@.metadata.name=="]x)")].metadata.name}`:               "",
		`{.items[0:1].metadata.name}`:                                     "a",
		`{.items[-1:].metadata.name}`:                                     "b",
		`{.items[1:1].metadata.name}`:                                     "",
		`{..port}`:                                                        "80 443",
		`{.items..metadata.name}`:                                         "a b",
		`{"}"}`:                                                           "}",
		`plain`:                                                           "plain",
	} {
		if got, err := jsonpath.Expand(template, value(t)); err != nil || got != want {
			t.Errorf("%s gives %q, %v, want %q", template, got, err, want)
		}
	}
	for _, template := range []string{`{.a`, `{end}`, `{range .items[*]}x`, `{.items[?(@.a==b)]}`, `{.items[?@.a]}`, `{.items[?(.a)]}`, `{.items[1:x]}`, `{.a[}`, `{a}`, `{.a..}`, `{"x}`} {
		if got, err := jsonpath.Expand(template, value(t)); err == nil {
			t.Errorf("%s gives %q, want an error", template, got)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add(`{.items[?(@.a=="b")]..c[1:-1]}`)
	f.Add(`{range .items[*]}{.metadata['name']}{"\n"}{end}{$.a[-1].*}`)
	v := value(f)
	f.Fuzz(func(_ *testing.T, template string) {
		_, _ = jsonpath.Expand(template, v) // must end, without a panic
	})
}
