package bookinfo

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
)

type ratingSet struct {
	ID      int            `json:"id"`
	Ratings map[string]int `json:"ratings"`
}

// Ratings tells how many stars each reviewer gave: GET and POST /ratings/{id}.
func Ratings(Config) http.Handler {
	var mu sync.Mutex // guards below
	given := map[int]map[string]int{}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", health("Ratings"))
	mux.HandleFunc("GET /ratings/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.Atoi(r.PathValue("id"))
		if err != nil {
			writeJSON(w, http.StatusBadRequest, map[string]string{"error": "please provide numeric product ID"})
			return
		}
		stars := map[string]int{"Reviewer1": 5, "Reviewer2": 4}
		mu.Lock()
		if g, ok := given[id]; ok {
			stars = g
		}
		mu.Unlock()
		writeJSON(w, http.StatusOK, ratingSet{ID: id, Ratings: stars})
	})
	mux.HandleFunc("POST /ratings/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.Atoi(r.PathValue("id"))
		stars := map[string]int{}
		if err == nil {
			err = json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&stars)
		}
		if err != nil {
			writeJSON(w, http.StatusBadRequest, map[string]string{"error": "please provide valid ratings JSON"})
			return
		}
		mu.Lock()
		if len(given) < 1000 {
			given[id] = stars
		}
		mu.Unlock()
		writeJSON(w, http.StatusOK, ratingSet{ID: id, Ratings: stars})
	})
	return mux
}
