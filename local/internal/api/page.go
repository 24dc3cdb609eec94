package api

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// page is which part of a list a client asks for: at most limit objects, 0 for all, after the last of the page before.
type page struct {
	limit int
	after *mark
}

// mark is a place in a list, which clients hand back as they got it.
type mark struct {
	Namespace string `json:"ns"`
	Name      string `json:"name"`
}

func readPage(limit, token string) (page, error) {
	p := page{}
	if limit != "" {
		n, err := strconv.ParseUint(limit, 10, 31)
		if err != nil {
			return p, problem{http.StatusBadRequest, metav1.StatusReasonBadRequest, "limit: " + err.Error()}
		}
		p.limit = int(n)
	}
	if token != "" {
		raw, err := base64.RawURLEncoding.DecodeString(token)
		if err == nil {
			p.after = &mark{}
			err = json.Unmarshal(raw, p.after)
		}
		if err != nil {
			return p, problem{http.StatusBadRequest, metav1.StatusReasonBadRequest, "continue: this token is not of this server"}
		}
	}
	return p, nil
}

// cut is the page of a list that is sorted by namespace and name. A page shows what is there now, not what was when the
// first one was read: what comes between two is missed, and nothing is shown twice.
func (p page) cut(objects []kinds.Object, revision uint64) ([]kinds.Object, metav1.ListMeta) {
	meta := metav1.ListMeta{ResourceVersion: strconv.FormatUint(revision, 10)}
	if p.after != nil {
		from, _ := slices.BinarySearchFunc(objects, *p.after, func(o kinds.Object, m mark) int {
			if o.GetNamespace() < m.Namespace || o.GetNamespace() == m.Namespace && o.GetName() <= m.Name {
				return -1
			}
			return 1
		})
		objects = objects[from:]
	}
	if p.limit == 0 || len(objects) <= p.limit {
		return objects, meta
	}
	left := int64(len(objects) - p.limit)
	objects = objects[:p.limit]
	last := objects[p.limit-1]
	token, err := json.Marshal(mark{last.GetNamespace(), last.GetName()})
	if err != nil {
		panic(err) // two strings
	}
	meta.Continue, meta.RemainingItemCount = base64.RawURLEncoding.EncodeToString(token), &left
	return objects, meta
}
