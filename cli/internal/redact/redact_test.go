package redact_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/cli/internal/redact"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

func key(t *testing.T) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestUI05TextsLoseTheirSecrets(t *testing.T) {
	private := key(t)
	body := strings.Split(private, "\n")[1]
	quoted, err := json.Marshal(private)
	if err != nil {
		t.Fatal(err)
	}
	jwt := "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
	for _, c := range []struct{ name, in, gone string }{
		{"PEM", "before\n" + private + "after", body},
		{"PEM in JSON", `{"key": ` + string(quoted) + `, "x": "after"}`, body},
		{"PEM cut off", private[:90], body[:30]},
		{"base64", "tls.key: " + base64.StdEncoding.EncodeToString([]byte(private)), base64.StdEncoding.EncodeToString([]byte(private))[60:100]},
		{"token", "authorization token " + jwt + " after", "c2lnbmF0dXJl"},
		{"bearer", "Authorization: Bearer abcdefghijklmnop.qrstuv after", "abcdefghijklmnop"},
		{"password", `db password=hunter22 after`, "hunter22"},
		{"password in JSON", `{"password": "hun ter22", "x": "after"}`, "ter22"},
	} {
		t.Run("UI-05 "+c.name, func(t *testing.T) {
			if !strings.Contains(c.in, c.gone) {
				t.Fatalf("the test's own text has no %q", c.gone)
			}
			got := string(redact.Text([]byte(c.in)))
			if strings.Contains(got, c.gone) || !strings.Contains(got, redact.Left) {
				t.Errorf("%q", got)
			}
			if strings.Contains(c.in, "after") && !strings.Contains(got, "after") {
				t.Errorf("more than the secret is gone: %q", got)
			}
		})
	}
	const innocent = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\nimage: istio/ztunnel token expired, path=/secret-garden\n"
	if got := string(redact.Text([]byte(innocent))); got != innocent {
		t.Errorf("what is no secret became %q", got)
	}
}

func TestUI05ObjectsLoseTheirSecrets(t *testing.T) {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "s", Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: "hunter22"}},
		Data:       map[string][]byte{"a": []byte("hunter22")},
	}
	deploy := &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Env: []corev1.EnvVar{{Name: "DB_PASSWORD", Value: "hunter22\nhunter22"}, {Name: "MODE", Value: "fast"}},
	}}}}}}
	for _, o := range []kinds.Object{secret, deploy} {
		b, err := kinds.Encode(redact.Object(o))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "hunter22") || strings.Contains(string(b), base64.StdEncoding.EncodeToString([]byte("hunter22"))) {
			t.Errorf("still there:\n%s", b)
		}
		if o == deploy && !strings.Contains(string(b), "fast") {
			t.Errorf("more than the secret is gone:\n%s", b)
		}
	}
	if string(secret.Data["a"]) != "hunter22" {
		t.Error("the object itself was changed")
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----"))
	f.Fuzz(func(t *testing.T, b []byte) {
		once := redact.Text(b)
		if strings.Contains(string(once), "PRIVATE KEY-----") && strings.Contains(string(once), "-----BEGIN PRIVATE KEY-----") {
			t.Errorf("%q", once)
		}
	})
}
