package bookinfo

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// shop starts the four services, each as its own server, wired as the manifests wire them.
func shop(t *testing.T, version string) (page, ratings *httptest.Server) {
	t.Helper()
	c := Config{Version: version, Pod: "reviews-pod", Log: slog.New(slog.DiscardHandler)}
	start := func(name string) *httptest.Server {
		s := httptest.NewServer(Services()[name](c))
		t.Cleanup(s.Close)
		return s
	}
	ratings = start("ratings")
	c.Ratings = ratings.URL
	c.Details, c.Reviews = start("details").URL, start("reviews").URL
	return start("productpage"), ratings
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestProductPageShowsEveryService(t *testing.T) {
	for version, want := range map[string][]string{
		"v1": {"Reviews served by: reviews-pod"},
		"v2": {`<span class="black">`, `aria-label="5 of 5 stars"`},
		"v3": {`<span class="red">`, `aria-label="4 of 5 stars"`},
	} {
		page, _ := shop(t, version)
		status, body := get(t, page.URL+"/productpage?u=normal")
		if status != http.StatusOK {
			t.Fatalf("%s: status %d", version, status)
		}
		for _, w := range append(want, "<title>Simple Bookstore App</title>", "William Shakespeare", "PublisherA") {
			if !strings.Contains(body, w) {
				t.Errorf("%s: page lacks %q", version, w)
			}
		}
		if version == "v1" && strings.Contains(body, "stars") {
			t.Errorf("v1 shows stars")
		}
	}
}

func TestPageSurvivesALostService(t *testing.T) {
	page, ratings := shop(t, "v3")
	ratings.Close()
	status, body := get(t, page.URL+"/productpage")
	if status != http.StatusOK || !strings.Contains(body, "Ratings service is currently unavailable") || !strings.Contains(body, "William Shakespeare") {
		t.Fatalf("status %d, body:\n%s", status, body)
	}
}

func TestIndexStaticAndAPI(t *testing.T) {
	page, _ := shop(t, "v2")
	for path, want := range map[string]string{
		"/":                          "<title>Simple Bookstore App</title>",
		"/static/shop.css":           "--accent",
		"/api/v1/products":           "The Comedy of Errors",
		"/api/v1/products/0":         `"ISBN-10":"1234567890"`,
		"/api/v1/products/0/reviews": `"color":"black"`,
		"/api/v1/products/0/ratings": `"Reviewer2":4`,
		"/health":                    "Product page is healthy",
	} {
		if status, body := get(t, page.URL+path); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: status %d, lacks %q:\n%s", path, status, want, body)
		}
	}
}
