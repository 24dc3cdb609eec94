package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

const (
	// mostBytes is how large a request may be: it has the object as it is and as it was, and what API servers keep them in takes
	// none of more than 1.5 MiB.
	mostBytes = 4 << 20
	// smallBytes is how large most requests are at most.
	smallBytes = 64 << 10
	// patience is for how long a request is worth answering; the server that asks waits for 10 s.
	patience = 9 * time.Second
)

// Handler serves admission reviews.
type Handler struct {
	judge        Judge
	log          *slog.Logger
	told         Told
	small, large *room
}

// Told is told of each answer. The kind is the zero value where it is not known; reviewed tells whether the request was one.
type Told func(k kinds.Kind, reviewed, allowed bool, took time.Duration)

// NewHandler makes a handler.
func NewHandler(j Judge, log *slog.Logger, told Told) *Handler {
	return &Handler{judge: j, log: log, told: told, small: newRoom(256, 64), large: newRoom(3, 1)}
}

// ServeHTTP answers a review. Anybody may ask, for the API server shows no credentials: so nothing is learnt from an answer
// but what `ambit validate` says, and memory and time are bounded.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	in := h.small
	if r.ContentLength < 0 || r.ContentLength > smallBytes {
		in = h.large
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	leave, err := in.enter(ctx, host)
	if err != nil {
		h.fail(w, r, http.StatusServiceUnavailable, "too many requests are under way; try again")
		return
	}
	defer leave()
	review, code, err := read(w, r)
	if err != nil {
		h.fail(w, r, code, err.Error())
		return
	}
	q := review.Request
	answer := h.judge.Review(q)
	review.Request, review.Response = nil, answer
	k, _ := kinds.FindGVK(metav1.GroupVersion{Group: q.Kind.Group, Version: q.Kind.Version}.String(), q.Kind.Kind)
	h.told(k, true, answer.Allowed, time.Since(begin))
	if !answer.Allowed {
		level := slog.LevelInfo
		if q.DryRun != nil && *q.DryRun {
			level = slog.LevelDebug
		}
		h.log.Log(r.Context(), level, "object refused", "kind", q.Kind.Kind, "name", nameOf(q), "of", q.UserInfo.Username, "why", answer.Result.Message)
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(review); err != nil {
		h.log.Debug("answer to an admission review not sent", "error", err)
	}
}

func (h *Handler) fail(w http.ResponseWriter, r *http.Request, code int, why string) {
	h.told(kinds.Kind{}, false, false, 0)
	h.log.Debug("no admission review", "from", r.RemoteAddr, "why", why)
	http.Error(w, why, code)
}

// read is the review of a request, or with which code it is none.
func read(w http.ResponseWriter, r *http.Request) (*admissionv1.AdmissionReview, int, error) {
	if r.ContentLength > mostBytes {
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("%d bytes, more than %d", r.ContentLength, mostBytes)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBytes))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("more than %d bytes", mostBytes)
	}
	if err != nil {
		return nil, http.StatusBadRequest, fmt.Errorf("read the request: %w", err)
	}
	review := &admissionv1.AdmissionReview{}
	if err := json.Unmarshal(body, review); err != nil {
		return nil, http.StatusBadRequest, fmt.Errorf("not an AdmissionReview: %w", err)
	}
	if review.APIVersion != admissionv1.SchemeGroupVersion.String() || review.Kind != "AdmissionReview" || review.Request == nil || review.Request.UID == "" {
		return nil, http.StatusBadRequest, errors.New("not an AdmissionReview of admission.k8s.io/v1 with a request")
	}
	return review, 0, nil
}
