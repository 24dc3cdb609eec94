package admission_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/ambit-mesh/ambit/control/internal/admission"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

const (
	valid   = `{"apiVersion":"networking.istio.io/v1","kind":"ServiceEntry","metadata":{"name":"x","namespace":"n"%s},"spec":{"hosts":["a.example"],"resolution":"DNS","ports":[{"number":80,"name":"http","protocol":"HTTP"}]}}`
	invalid = `{"apiVersion":"networking.istio.io/v1","kind":"ServiceEntry","metadata":{"name":"x","namespace":"n"%s},"spec":{"hosts":["no host"],"resolution":"DNS","ports":[{"number":80,"name":"http","protocol":"HTTP"}]}}`
	worse   = `{"apiVersion":"networking.istio.io/v1","kind":"ServiceEntry","metadata":{"name":"x","namespace":"n"%s},"spec":{"hosts":["no host at all"]}}`
)

func judge() admission.Judge {
	return admission.Judge{
		Reads:    func(o kinds.Object) bool { return kinds.Of(o).Kind != "Sidecar" },
		Foretell: func(o kinds.Object) []string { return []string{"foretold of " + o.GetName()} },
	}
}

func TestReview(t *testing.T) {
	plain := func(s string) string { return strings.Replace(s, "%s", "", 1) }
	with := func(s, meta string) string { return strings.Replace(s, "%s", ","+meta, 1) }
	const create, update = admissionv1.Create, admissionv1.Update
	for _, c := range []struct {
		name, group, version, kind, sub string
		op                              admissionv1.Operation
		object, old                     string
		refused, warned                 string // a part of it; "" for not
	}{
		{name: "a valid object is taken, and it is told what of it does nothing", op: create, object: plain(valid), warned: "foretold of x"},
		{name: "one that is not is refused, with the words of validate", op: create, object: plain(invalid), refused: `ServiceEntry n/x is not valid: spec.hosts[0]: "no host" is not a host name; use letters`},
		{name: "a change that leaves it wrong is refused", op: update, object: plain(worse), old: plain(invalid), refused: "no host at all"},
		{name: "a label on one that was never valid is taken", op: update, object: with(invalid, `"labels":{"a":"b"}`), old: plain(invalid), warned: "as little valid as before"},
		{name: "a finalizer may go from one that was never valid", op: update, object: plain(invalid), old: with(invalid, `"finalizers":["a/b"]`), warned: "as little valid as before"},
		{name: "a change that mends it is taken", op: update, object: plain(valid), old: plain(invalid), warned: "foretold"},
		{name: "what is on its way out is taken", op: update, object: with(invalid, `"deletionTimestamp":"2026-01-02T03:04:05Z"`), old: plain(valid)},
		{name: "a deletion is none of our business", op: admissionv1.Delete, old: plain(invalid)},
		{name: "nor is a connection", op: admissionv1.Connect, object: plain(invalid)},
		{name: "nor is a status", op: update, sub: "status", object: plain(invalid), old: plain(valid)},
		{name: "nor is a kind of others", group: "apps", version: "v1", kind: "Deployment", op: create, object: `{}`},
		{name: "a kind that we do not know does nothing", kind: "WasmPlugin", group: "extensions.istio.io", version: "v1alpha1", op: create, object: `{}`, warned: "does not know kind WasmPlugin"},
		{
			name: "a kind that we do not read does nothing", kind: "Sidecar", op: create, warned: "does not read objects of kind Sidecar",
			object: `{"apiVersion":"networking.istio.io/v1","kind":"Sidecar","metadata":{"name":"x","namespace":"n"},"spec":{"egress":[{"hosts":["*/*"]}]}}`,
		},
		{name: "an object of another kind than the request says", kind: "Gateway", op: create, object: plain(valid), refused: "it is a ServiceEntry"},
		{name: "no object", op: create, object: "", refused: "cannot be read"},
		{name: "not an object", op: create, object: "[1]", refused: "cannot be read"},
		{name: "null", op: create, object: "null", refused: "it is a <nil>"},
		{name: "XD-18 text that a terminal obeys", op: create, object: strings.Replace(plain(valid), "a.example", `\u001b[31mx\n\u202ey`, 1), refused: `\x1b[31mx\n`},
		{name: "XD-13 a name of a megabyte", op: create, object: strings.Replace(plain(valid), "a.example", strings.Repeat("x ", 1<<19), 1), refused: "…"},
		{name: "XD-13 deeper than anything", op: create, object: strings.Replace(plain(valid), `"a.example"`, strings.Repeat("[", 9000)+strings.Repeat("]", 9000), 1), refused: "nested deeper"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.group == "" {
				c.group, c.version = "networking.istio.io", "v1"
			}
			if c.kind == "" {
				c.kind = "ServiceEntry"
			}
			got := judge().Review(&admissionv1.AdmissionRequest{
				UID: "u", Kind: metav1.GroupVersionKind{Group: c.group, Version: c.version, Kind: c.kind}, SubResource: c.sub, Operation: c.op,
				Name: "x", Namespace: "n", Object: runtime.RawExtension{Raw: []byte(c.object)}, OldObject: runtime.RawExtension{Raw: []byte(c.old)},
			})
			if got.UID != "u" || got.Allowed != (c.refused == "") {
				t.Fatalf("%+v", got)
			}
			if !got.Allowed && (!strings.Contains(got.Result.Message, c.refused) || len(got.Result.Message) > 4000 || strings.ContainsAny(got.Result.Message, "\x1b\u202e")) {
				t.Errorf("refused: %q, want %q", got.Result.Message, c.refused)
			}
			if all := strings.Join(got.Warnings, "\n"); (all == "") != (c.warned == "") || !strings.Contains(all, c.warned) {
				t.Errorf("warnings %q, want %q", all, c.warned)
			}
		})
	}
}

func handler(t testing.TB) http.Handler {
	return admission.NewHandler(judge(), slog.New(slog.NewTextHandler(t.Output(), nil)), func(kinds.Kind, bool, bool, time.Duration) {})
}

func review(object string) string {
	return `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","kind":{"group":"networking.istio.io","version":"v1","kind":"ServiceEntry"},"operation":"CREATE","name":"x","namespace":"n","object":` + object + `}}`
}

// What is no review is told so, and takes neither the process nor its memory along.
func TestXD13Requests(t *testing.T) {
	h := handler(t)
	for _, c := range []struct {
		name, body string
		length     int64
		want       int
	}{
		{"a review", review(fmt.Sprintf(valid, "")), 0, http.StatusOK},
		{"nothing", "", 0, http.StatusBadRequest},
		{"garbage", "\xff\x00{", 0, http.StatusBadRequest},
		{"another version", strings.Replace(review("{}"), "k8s.io/v1", "k8s.io/v1beta1", 1), 0, http.StatusBadRequest},
		{"no request", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, 0, http.StatusBadRequest},
		{"no uid", strings.Replace(review("{}"), `"uid":"u",`, "", 1), 0, http.StatusBadRequest},
		{"more than we take, as it says itself", "x", 5 << 20, http.StatusRequestEntityTooLarge},
		{"more than we take, without saying so", strings.Repeat(" ", 5<<20), -1, http.StatusRequestEntityTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/validate", strings.NewReader(c.body))
			if c.length != 0 {
				r.ContentLength = c.length
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.want {
				t.Errorf("%d %s, want %d", w.Code, w.Body, c.want)
			}
		})
	}
}

func FuzzReview(f *testing.F) {
	for _, o := range []string{valid, invalid, worse} {
		f.Add([]byte(review(strings.Replace(o, "%s", "", 1))))
		f.Add([]byte(strings.Replace(strings.Replace(review(strings.Replace(o, "%s", "", 1)), "CREATE", "UPDATE", 1), `"object"`, `"oldObject":{"spec":{}},"object"`, 1)))
	}
	f.Add([]byte(strings.ReplaceAll(review(`{"apiVersion":"security.istio.io/v1","kind":"AuthorizationPolicy","metadata":{"name":"x"},"spec":{"rules":[{"when":[{"key":"source.ip","values":["x"]}]}]}}`), `networking.istio.io","version":"v1","kind":"ServiceEntry`, `security.istio.io","version":"v1","kind":"AuthorizationPolicy`)))
	f.Fuzz(func(t *testing.T, body []byte) {
		w := httptest.NewRecorder()
		handler(t).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/validate", bytes.NewReader(body)))
		if w.Code == http.StatusBadRequest {
			return
		}
		var out admissionv1.AdmissionReview
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != http.StatusOK || out.Response == nil || out.Response.UID == "" {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if !out.Response.Allowed && out.Response.Result.Message == "" {
			t.Fatal("refused without a reason")
		}
	})
}

func TestMended(t *testing.T) {
	hook := func(name, bundle string, policy admissionregistrationv1.FailurePolicyType) admissionregistrationv1.ValidatingWebhook {
		w := admissionregistrationv1.ValidatingWebhook{Name: name}
		w.ClientConfig.CABundle = []byte(bundle)
		if policy != "" {
			w.FailurePolicy = &policy
		}
		return w
	}
	const ignore, fail = admissionregistrationv1.Ignore, admissionregistrationv1.Fail
	for _, c := range []struct {
		name    string
		hooks   []admissionregistrationv1.ValidatingWebhook
		reached bool
		want    string
	}{
		{"all is right", []admissionregistrationv1.ValidatingWebhook{hook("a", "R", fail), hook("b", "R", "")}, true, ""},
		{"nobody was seen to answer: it goes on", []admissionregistrationv1.ValidatingWebhook{hook("a", "R", ignore)}, false, ""},
		{"a server that does not reach us any more goes on refusing", []admissionregistrationv1.ValidatingWebhook{hook("a", "R", fail)}, false, ""},
		{
			"other roots",
			[]admissionregistrationv1.ValidatingWebhook{hook("a", "R", ignore), hook("b", "", ignore)},
			false,
			`[{"op":"test","path":"/metadata/resourceVersion","value":"7"},{"op":"test","path":"/webhooks/1/name","value":"b"},{"op":"add","path":"/webhooks/1/clientConfig/caBundle","value":"Ug=="}]`,
		},
		{
			"it is seen to ask",
			[]admissionregistrationv1.ValidatingWebhook{hook("a", "R", ignore)},
			true,
			`[{"op":"test","path":"/metadata/resourceVersion","value":"7"},{"op":"test","path":"/webhooks/0/name","value":"a"},{"op":"add","path":"/webhooks/0/failurePolicy","value":"Fail"}]`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := admission.Mended(&admission.Configured{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "7"}, Webhooks: c.hooks}, "R", c.reached)
			if err != nil || string(got) != c.want {
				t.Errorf("%s %v, want %s", got, err, c.want)
			}
		})
	}
}
