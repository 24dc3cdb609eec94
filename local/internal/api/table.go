package api

import (
	"mime"
	"net/http"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/table"
)

// wantsTable tells whether a client leaves the columns to the server, as kubectl does, and what it wants of each object.
func wantsTable(r *http.Request) (table.Embed, error) {
	for _, accept := range r.Header.Values("Accept") {
		for _, one := range strings.Split(accept, ",") {
			kind, params, err := mime.ParseMediaType(one)
			if err != nil || params["as"] != "Table" {
				continue
			}
			if kind != "application/json" || params["v"] != "v1" {
				continue // the client names others after it
			}
			switch embed := table.Embed(r.URL.Query().Get("includeObject")); embed {
			case "":
				return table.EmbedMetadata, nil
			case table.EmbedNone, table.EmbedMetadata, table.EmbedObject:
				return embed, nil
			}
			return "", problem{http.StatusBadRequest, metav1.StatusReasonBadRequest, "includeObject must be None, Metadata or Object"}
		}
	}
	return "", nil
}

// sendTable answers with a table of one object.
func sendTable(w http.ResponseWriter, q request, o kinds.Object) error {
	t, err := table.Of(q.kind, []kinds.Object{o}, table.Options{Now: time.Now()}, q.table)
	if err != nil {
		return err
	}
	t.ResourceVersion = o.GetResourceVersion()
	sendJSON(w, http.StatusOK, t)
	return nil
}
