package admission_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func BenchmarkReview(b *testing.B) {
	const policy = `{"apiVersion":"security.istio.io/v1","kind":"AuthorizationPolicy","metadata":{"name":"p","namespace":"n"},"spec":{"selector":{"matchLabels":{"app":"web"}},"rules":[{"from":[{"source":{"ipBlocks":["%s"]}}]}]}}`
	for _, blocks := range []int{1, 1000, 70_000} {
		all := make([]string, blocks)
		for i := range all {
			all[i] = fmt.Sprintf("10.%d.%d.0/24", i/250%250, i%250)
		}
		body := strings.NewReplacer(`networking.istio.io`, `security.istio.io`, "ServiceEntry", "AuthorizationPolicy").Replace(review(fmt.Sprintf(policy, strings.Join(all, `","`))))
		b.Run(fmt.Sprintf("%dB", len(body)), func(b *testing.B) {
			h := handler(b)
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/validate", strings.NewReader(body)))
				if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"allowed":true`) {
					b.Fatal(w.Body)
				}
			}
		})
	}
}
