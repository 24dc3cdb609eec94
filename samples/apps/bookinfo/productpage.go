package bookinfo

import (
	"embed"
	"html/template"
	"io/fs"
	"net/http"
	"strings"
	"time"
)

//go:embed ui
var ui embed.FS

type product struct {
	ID          int    `json:"id"`
	Title       string `json:"title"`
	Description string `json:"descriptionHtml"`
}

func catalogue() []product {
	return []product{{
		ID: 0, Title: "The Comedy of Errors",
		Description: "Two pairs of twins, parted as babies by a shipwreck, come to the same town on the same day. Nobody knows, and everybody is sure.",
	}}
}

// page is what the template shows; an empty section with an error tells which service failed and how.
type page struct {
	User         string
	Product      product
	Details      *book
	DetailsError string
	Reviews      *reviewSet
	ReviewsError string
}

// Productpage is the shop's web page on 9080: / , /productpage, /login, /logout, /static and /api/v1/products.
func Productpage(c Config) http.Handler {
	static, err := fs.Sub(ui, "ui")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	const best = 5
	stars := func(n int) []struct{} { return make([]struct{}, min(max(n, 0), best)) }
	views := template.Must(template.New("").Funcs(template.FuncMap{
		"times": stars, "missing": func(n int) []struct{} { return stars(best - n) },
	}).ParseFS(ui, "ui/*.html"))
	show := func(w http.ResponseWriter, name string, data any) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if err := views.ExecuteTemplate(w, name, data); err != nil {
			c.Log.Warn("page not written", "page", name, "error", err)
		}
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { writeText(w, "Product page is healthy") })
	mux.Handle("GET /static/", http.FileServerFS(static))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { show(w, "index.html", catalogue()[0]) })
	mux.HandleFunc("GET /index.html", func(w http.ResponseWriter, _ *http.Request) { show(w, "index.html", catalogue()[0]) })
	mux.HandleFunc("GET /productpage", func(w http.ResponseWriter, r *http.Request) {
		p := page{Product: catalogue()[0]}
		if k, err := r.Cookie("user"); err == nil {
			p.User = k.Value
			r.Header.Set("End-User", k.Value)
		}
		fill(r, c, &p)
		show(w, "productpage.html", p)
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "user", Value: strings.TrimSpace(r.PostFormValue("username")), Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
		http.Redirect(w, r, "/productpage", http.StatusFound)
	})
	mux.HandleFunc("GET /logout", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "user", Path: "/", MaxAge: -1})
		http.Redirect(w, r, "/productpage", http.StatusFound)
	})
	api(mux, c)
	return mux
}

// fill asks the services behind the page, details and reviews one after the other as the original does.
func fill(r *http.Request, c Config, p *page) {
	var d book
	if _, err := call(r, c.Details+"/details/0", 6*time.Second, &d); err != nil {
		p.DetailsError = err.Error()
		c.Log.Warn("details unavailable", "error", err)
	} else {
		p.Details = &d
	}
	var rv reviewSet
	if _, err := call(r, c.Reviews+"/reviews/0", 6*time.Second, &rv); err != nil {
		p.ReviewsError = err.Error()
		c.Log.Warn("reviews unavailable", "error", err)
	} else {
		p.Reviews = &rv
	}
}

// api is the same as JSON.
func api(mux *http.ServeMux, c Config) {
	mux.HandleFunc("GET /api/v1/products", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, catalogue()) })
	relay := func(out func() any, url func(id string) string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			v := out()
			status, err := call(r, url(r.PathValue("id")), 6*time.Second, v)
			if err != nil {
				writeJSON(w, max(status, http.StatusInternalServerError), map[string]string{"error": err.Error()})
				return
			}
			writeJSON(w, status, v)
		}
	}
	mux.HandleFunc("GET /api/v1/products/{id}", relay(func() any { return new(book) }, func(id string) string { return c.Details + "/details/" + id }))
	mux.HandleFunc("GET /api/v1/products/{id}/reviews", relay(func() any { return new(reviewSet) }, func(id string) string { return c.Reviews + "/reviews/" + id }))
	mux.HandleFunc("GET /api/v1/products/{id}/ratings", relay(func() any { return new(ratingSet) }, func(id string) string { return c.Ratings + "/ratings/" + id }))
}

func writeText(w http.ResponseWriter, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(s))
}
