package bookinfo

import (
	"net/http"
	"time"
)

type review struct {
	Reviewer string `json:"reviewer"`
	Text     string `json:"text"`
	Rating   *stars `json:"rating,omitempty"`
}

type stars struct {
	Stars int    `json:"stars,omitempty"`
	Color string `json:"color,omitempty"`
	Error string `json:"error,omitempty"`
}

type reviewSet struct {
	ID          string   `json:"id"`
	Podname     string   `json:"podname"`
	Clustername string   `json:"clustername"`
	Reviews     []review `json:"reviews"`
}

// Reviews tells what readers thought: GET /reviews/{id}. v1 shows no stars, v2 black and v3 red ones.
func Reviews(c Config) http.Handler {
	color := map[string]string{"v2": "black", "v3": "red"}[c.Version]
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", health("Reviews"))
	mux.HandleFunc("GET /reviews/{id}", func(w http.ResponseWriter, r *http.Request) {
		set := reviewSet{
			ID: r.PathValue("id"), Podname: c.Pod, Clustername: "null",
			Reviews: []review{
				{Reviewer: "Reviewer1", Text: "Mistaken twins, a tight plot and jokes that still land: the funniest evening I have spent with a book."},
				{Reviewer: "Reviewer2", Text: "Light beside the later plays, but it never stops moving, and that is what a farce is for."},
			},
		}
		if color != "" {
			rate(r, c, color, set.Reviews)
		}
		writeJSON(w, http.StatusOK, set)
	})
	return mux
}

// rate adds stars, or says in their place that ratings could not be had.
func rate(r *http.Request, c Config, color string, to []review) {
	var got ratingSet
	_, err := call(r, c.Ratings+"/ratings/"+r.PathValue("id"), 10*time.Second, &got)
	for i := range to {
		if err != nil {
			to[i].Rating = &stars{Error: "Ratings service is currently unavailable"}
			continue
		}
		to[i].Rating = &stars{Stars: got.Ratings[to[i].Reviewer], Color: color}
	}
	if err != nil {
		c.Log.Warn("ratings unavailable", "error", err)
	}
}
